"""The environments of the trainers that Graft is measured against: one venv each under var/bench, made once from a pinned list."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "benchmarks" / "requirements"
ENVIRONMENTS = ("hf", "trl", "llama-factory", "litgpt")

# PyPI's torchvision and torchaudio are built against CUDA: beside a CPU build of torch they end the import of transformers
# ("operator torchvision::nms does not exist"). LLaMA-Factory asks for both and, training text, needs neither.
UNWANTED = {"llama-factory": ("torchvision", "torchaudio")}
_REASON_LINES = 3


class EnvironmentUnavailable(Exception):
    """An environment could not be made; the message says why."""


def ensure_env(name: str, folder: Path | None = None) -> Path:
    """The Python of environment `name` (one of `ENVIRONMENTS`), made first where it is absent or its pinned list has changed.

    `folder` holds the environments (var/bench where it is None). Raises `EnvironmentUnavailable` with the end of pip's output.
    """
    wanted = REQUIREMENTS / f"{name}.txt"
    home = (folder or ROOT / "var" / "bench") / name
    python, stamp = home / "bin" / "python", home / "installed.sha256"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
        return python
    home.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    _run(name, [sys.executable, "-m", "venv", str(home)])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    _run(name, [*pip, "install", "--quiet", "-r", str(wanted)])
    if name in UNWANTED:
        _run(name, [*pip, "uninstall", "--quiet", "--yes", *UNWANTED[name]])
    stamp.write_text(digest, encoding="ascii")
    return python


def _run(name: str, command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise EnvironmentUnavailable(f"the environment '{name}' does not install: {' '.join(lines[-_REASON_LINES:])}")
