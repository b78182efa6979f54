"""Freed memory goes back to the system where it is asked to."""

from __future__ import annotations

import ctypes

import psutil
import pytest
import torch

from jobs.models.resident import give_back_freed

MEBI = 2**20


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_was_freed_between_what_is_in_use_leaves_the_process():
    resident = psutil.Process().memory_info
    pieces = [torch.ones(size) for _ in range(1500) for size in (25_000, 16)]
    kept = pieces[1::2]
    del pieces
    before = resident().rss
    give_back_freed()
    assert before - resident().rss > 100 * MEBI
    assert all(bool(piece.all()) for piece in kept)
