"""Weights that are mapped from their file: the file is one mapping, and stays in memory whole while one tensor of it is in use."""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from jobs.models.resident import give_back_freed

_MAPS = Path("/proc/self/maps")
_SUFFIX = ".safetensors"
# From <sys/mman.h> of Linux, where alone there are any mappings to be seen.
_MADV_DONTNEED = 4


def weight_files(tensors: Iterable[Tensor]) -> set[str]:
    """The files of weights that any of the tensors is mapped from; none where this system does not tell (it is not Linux)."""
    starts, ends, files = _mappings()
    found = set()
    for tensor in tensors:
        place = bisect_right(starts, tensor.data_ptr()) - 1
        if place >= 0 and tensor.data_ptr() < ends[place]:
            found.add(files[place])
    return found


def let_go(model: nn.Module, files: set[str], pages: Pages | None = None) -> None:
    """Copies the parameters of `model` that are mapped from `files`, so that these leave the process's memory: at once where `pages` are
    theirs, else with the last parameter.
    """
    for parameter in model.parameters() if files else ():
        if weight_files([parameter]) & files:
            parameter.data = parameter.data.clone()
            if pages:
                pages.were_read(parameter.nbytes)


class Pages:
    """The pages of the files of weights that come to be mapped from now on. Whenever `WINDOW` bytes were read of them, they go from the
    process's memory, though not from the system's.
    """

    WINDOW = 2**26

    def __init__(self) -> None:
        self._before = set(_mappings()[0])
        self._read = 0

    def were_read(self, size: int) -> None:
        """So many bytes were read."""
        self._read += size
        if self._read >= self.WINDOW:
            self.leave()

    def leave(self) -> None:
        """Lets go of all of them, and of what was freed. What is read again comes from the file: nothing of it may have been written to."""
        self._read = 0
        libc = ctypes.CDLL(None)
        for start, end, _ in zip(*_mappings(), strict=True):
            if start not in self._before:
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
        give_back_freed()


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
