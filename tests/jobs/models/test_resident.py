"""Freed memory goes back to the system where it is asked to."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

# What a process of its own gives back, in MiB: of 143 that were freed between small tensors that it keeps.
PROGRAM = """
import psutil, torch
from jobs.models.resident import give_back_freed
resident = psutil.Process().memory_info
pieces = [torch.ones(size) for _ in range(1500) for size in (25_000, 16)]
kept = pieces[1::2]
del pieces
before = resident().rss
give_back_freed()
assert all(bool(piece.all()) for piece in kept)
print((before - resident().rss) / 2**20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_was_freed_between_what_is_in_use_leaves_the_process():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert float(done.stdout) > 100
