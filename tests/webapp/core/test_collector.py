"""Python's garbage collector in a process that answers requests."""

from __future__ import annotations

import subprocess
import sys

from webapp.settings.env import PROJECT


def test_what_the_web_process_has_loaded_is_out_of_the_collectors_sight() -> None:
    program = "import gc, webapp.asgi; print(gc.get_freeze_count() > 50_000, len(gc.get_objects()) < 5_000)"

    answer = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=120)

    assert answer.stdout.split() == ["True", "True"]
