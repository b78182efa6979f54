"""Weights that are mapped from their file: the file is one mapping, and stays in memory whole while one tensor of it is in use."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

_MAPS = Path("/proc/self/maps")
_SUFFIX = ".safetensors"


def weight_files(tensors: Iterable[Tensor]) -> set[str]:
    """The files of weights that any of the tensors is mapped from; none where this system does not tell (it is not Linux)."""
    starts, ends, files = _mappings()
    found = set()
    for tensor in tensors:
        place = bisect_right(starts, tensor.data_ptr()) - 1
        if place >= 0 and tensor.data_ptr() < ends[place]:
            found.add(files[place])
    return found


def let_go(model: nn.Module, files: set[str]) -> None:
    """Copies the parameters of `model` that are mapped from `files`, so that these leave the process's memory."""
    for parameter in model.parameters() if files else ():
        if weight_files([parameter]) & files:
            parameter.data = parameter.data.clone()


def _mappings() -> tuple[list[int], list[int], list[str]]:
    """(starts, ends, files) of the mapped files of weights, by address."""
    if not _MAPS.exists():
        return [], [], []
    found = []
    for line in _MAPS.read_text(encoding="utf-8").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].endswith(_SUFFIX):
            start, end = (int(one, 16) for one in fields[0].split("-"))
            found.append((start, end, fields[5]))
    found.sort()
    return [one[0] for one in found], [one[1] for one in found], [one[2] for one in found]
