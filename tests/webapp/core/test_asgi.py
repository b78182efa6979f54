"""What a web process loads."""

from __future__ import annotations

import subprocess
import sys

from webapp.settings.env import PROJECT

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "pyarrow")


def test_the_web_process_loads_nothing_heavy() -> None:
    program = f"import sys, webapp.asgi; print([name for name in {HEAVY} if name in sys.modules])"

    answer = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=120)

    assert answer.stdout.strip() == "[]"
