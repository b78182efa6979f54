"""What a compiled region is made for, and the name of its file. Free of torch: the estimate asks which there are."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from jobs import cpu
from jobs.cache import cache_folder

Static = bool | int | float | str

_FOLDER = "GRAFT_REGIONS"
_REGIONS = Path(__file__).parent / "training" / "regions.py"


@dataclass(frozen=True)
class Geometry:
    """What one library is made for: a region, its static arguments, and of each tensor the dtype, sizes and strides.

    A size is a number where it is the model's, a name where it is the batch's. Strides are None where the tensor is contiguous.
    """

    region: str
    static: tuple[tuple[str, Static], ...]
    dtypes: tuple[str, ...]
    sizes: tuple[tuple[int | str, ...], ...]
    strides: tuple[tuple[int, ...] | None, ...]

    @property
    def file_name(self) -> str:
        """Its library's name: changes with the source of the regions, torch and the processor."""
        text = json.dumps([asdict(self), _source(), _machine()])
        return f"{self.region}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pt2"


def default_folder() -> Path:
    """Where libraries are kept: `GRAFT_REGIONS`, else in the user's cache."""
    named = os.environ.get(_FOLDER)
    return Path(named) if named else cache_folder() / "regions"


@cache
def _source() -> str:
    return _REGIONS.read_text(encoding="utf-8")


@cache
def _machine() -> str:
    """What a library depends on besides its source: torch, and the processor's instructions."""
    flags = " ".join(sorted(cpu.instructions())) or platform.processor()
    return f"{version('torch')} {platform.machine()} {os.uname().sysname} {flags}"
