"""Checkpoints that are whole or not there.

Everything is written and fsynced in a hidden folder, `MANIFEST.json` (size and sha256 of each file) last; then the folder is renamed into
place and its parent fsynced. Tensors are safetensors, the rest is JSON: nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from jobs.durable import fsync_file, fsync_folder
from jobs.errors import GraftError, UserError
from jobs.training.fingerprint import kept_fingerprint

MANIFEST = "MANIFEST.json"
KEPT = 2
_PREFIX = "step-"
_TEMPORARY = ".tmp-"
_BLOCK_BYTES = 2**22

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk: its step, and whether it had the lowest validation loss so far when it was written."""

    path: Path
    step: int
    bytes: int
    best: bool


def save(
    folder: Path,
    step: int,
    *,
    weights: Tensors,
    optimiser: Tensors,
    state: Mapping[str, Any],
    method: Tensors | None = None,
    best: bool = False,
) -> Saved:
    """Writes `folder/step-<8 digits>` and returns it; a checkpoint of the same step is replaced. `method` is what its hooks keep.

    Raises `GraftError("disk_full")`, with nothing left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, temporary = folder / f"{_PREFIX}{step:08d}", folder / f"{_TEMPORARY}{step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        save_file(dict(weights), temporary / "weights.safetensors")
        save_file(dict(optimiser), temporary / "optimiser.safetensors")
        save_file(dict(method or {}), temporary / "method.safetensors")
        (temporary / "state.json").write_text(json.dumps({**state, "step": step, "best": best}, allow_nan=False), encoding="utf-8")
        files = {path.name: _seal(path) for path in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(json.dumps({"version": 1, "files": files}), encoding="utf-8")
        _seal(temporary / MANIFEST)
        fsync_folder(temporary)
        replaced = _set_aside(target)
        temporary.rename(target)
        fsync_folder(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except Exception as failure:
        shutil.rmtree(temporary, ignore_errors=True)
        # safetensors reports a failed write by its own error, with the system's words in it.
        if getattr(failure, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(failure):
            raise GraftError("disk_full", path=target) from failure
        raise
    return Saved(target, step, sum(int(entry["bytes"]) for entry in files.values()), best)


def rotate(folder: Path) -> None:
    """Keeps the newest `KEPT` checkpoints and the newest one marked best; the rest goes only once the newest has proven whole."""
    found = _steps(folder)
    if len(found) <= KEPT or not verify(found[-1]):
        return
    best = [path for path in found if read_state(path).get("best")]
    for path in found[:-KEPT]:
        if path not in best[-1:]:
            shutil.rmtree(_set_aside(path))


def newest(folders: Iterable[Path]) -> Path | None:
    """The checkpoint with the highest step, over several folders, that is whole; what is torn is passed over."""
    found = [path for folder in folders for path in _steps(folder)]
    return next((path for path in sorted(found, key=lambda path: path.name, reverse=True) if verify(path)), None)


def of_step(folders: Iterable[Path], step: int) -> Path | None:
    """The first whole checkpoint of a step in several folders, each as `newest` takes them."""
    found = [path for folder in folders for path in _steps(folder) if path.name == f"{_PREFIX}{step:08d}"]
    return next((path for path in found if verify(path)), None)


def verify(path: Path) -> bool:
    """Whether every file of the manifest is there with its size and sha256."""
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        return bool(files) and all(_measure(path / name) == entry for name, entry in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_saved(folder: Path, step: int) -> bool:
    """Whether `folder` has a whole checkpoint of this step."""
    return verify(folder / f"{_PREFIX}{step:08d}")


def read_state(path: Path) -> dict[str, Any]:
    """The checkpoint's `state.json`; empty where it cannot be read."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The trained weights by name, on the CPU."""
    return load_file(path / "weights.safetensors")


def read_moments(path: Path) -> dict[str, Tensor]:
    """The optimiser's state, on the CPU."""
    return load_file(path / "optimiser.safetensors")


def read_method(path: Path) -> dict[str, Tensor]:
    """What the method's hooks keep, on the CPU; nothing in a checkpoint of the days before there were any."""
    file = path / "method.safetensors"
    return load_file(file) if file.is_file() else {}


def _steps(folder: Path) -> list[Path]:
    """The folders named as checkpoints, lowest step first. `folder` may be the one that holds them, or one that holds `checkpoints/`."""
    nested = folder / "checkpoints"
    place = nested if nested.is_dir() else folder
    if place.name.startswith(_PREFIX):
        return [place]
    return sorted(path for path in place.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit())


def _set_aside(path: Path) -> Path:
    """Takes its name from a checkpoint that is to be deleted: a half-deleted one must not carry it."""
    doomed = path.with_name(f"{_TEMPORARY}old-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    if path.exists():
        path.rename(doomed)
    return doomed


def _measure(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _seal(path: Path) -> dict[str, Any]:
    """Forces a file to disk and measures it."""
    fsync_file(path)
    return _measure(path)


def require_same_run(path: Path, state: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> None:
    """Raises `UserError("resume_mismatch")` that names the first thing in which a checkpoint's run differs from this one; its length
    may be another (`is_of_another_length`).
    """
    found = kept_fingerprint(state)
    for name, value in fingerprint.items():
        if name != "length" and found.get(name) != value:
            raise UserError("resume_mismatch", path=path, what=name)


def is_of_another_length(state: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> bool:
    """Whether the run was to be longer or shorter when it wrote this checkpoint."""
    length = fingerprint.get("length")
    return bool(kept_fingerprint(state).get("length", length) != length)


class Clock:
    """When to write a checkpoint: every `every` steps where that is given, else by time.

    By time: after about 30 s or a tenth of the steps, whichever is later, and never so often that writing takes more than a twentieth
    of the time; a new best validation loss is written after half that time. The last step always is.
    """

    SECONDS = 30.0
    SHARE = 0.1
    WRITING_SHARE = 0.05

    def __init__(self, total_steps: int, every: int | None) -> None:
        self._total, self._every = total_steps, every
        self._step, self._time, self._cost = 0, time.monotonic(), 0.0

    def due(self, step: int, *, best: bool) -> bool:
        """Whether to write one after `step` steps."""
        if step == self._total:
            return True
        if self._every:
            return step % self._every == 0
        waited = time.monotonic() - self._time
        rest = self._cost / self.WRITING_SHARE
        if best:
            return waited >= max(self.SECONDS, rest) / 2
        return waited >= max(self.SECONDS, rest) and step - self._step >= self._total * self.SHARE

    def saved(self, step: int, seconds: float) -> None:
        """Takes note of a checkpoint, and of what it took to write it."""
        self._step, self._time, self._cost = step, time.monotonic(), seconds
