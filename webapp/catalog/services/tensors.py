"""What a model's files hold, as the box reads it: its config and tensors, for all that plans with them in this process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from jobs.errors import UserError
from jobs.models.inspect import TensorFacts
from webapp.core.box import run_in_box

FOLDERS_KEPT = 32


def tensors_of(folder: Path) -> tuple[dict[str, Any], list[TensorFacts]]:
    """(config, tensors) of the ready model in `folder`; not to be changed. Raises `UserError`: `model_missing`, or what the box says."""
    if not folder.is_dir():
        raise UserError("model_missing", path=folder)
    return _read(folder)


@lru_cache(FOLDERS_KEPT)
def _read(folder: Path) -> tuple[dict[str, Any], list[TensorFacts]]:
    """A base model's files never change once it is ready."""
    found = run_in_box(["tensors", str(folder), "--json"], readable=[folder])
    return found["config"], [TensorFacts(name, dtype, tuple(shape), size) for name, dtype, shape, size in found["tensors"]]
