"""A process that ends with the one that started it, by the kernel (`prctl(PR_SET_PDEATHSIG)`, Linux)."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with(parent: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Asks the kernel to send this process `number` when its parent ends; false where the parent has gone already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    return os.getppid() == parent
