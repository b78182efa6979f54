"""Little memory: a control group with a limit, within which the kernel kills as on a machine that has run out. Root alone can make one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FIRST, _SECOND = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextmanager
def little_memory(megabytes: int) -> Iterator[Path]:
    """A group with this much memory; gives the file into which a process writes itself. Skips the test where none can be made."""
    old = (_FIRST / "memory.limit_in_bytes").exists()
    group = (_FIRST if old else _SECOND) / f"graft-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(megabytes * 2**20))
        with contextlib.suppress(OSError):
            (group / ("memory.memsw.limit_in_bytes" if old else "memory.swap.max")).write_text(str(megabytes * 2**20 if old else 0))
    except OSError as failure:
        pytest.skip(f"a control group cannot be made: {failure}")
    try:
        yield group / "cgroup.procs"
    finally:
        until = time.monotonic() + 10
        while (group / "cgroup.procs").read_text() and time.monotonic() < until:
            time.sleep(0.1)
        group.rmdir()
