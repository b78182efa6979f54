"""What the process holds of memory beyond its tensors."""

from __future__ import annotations

import ctypes


def give_back_freed() -> None:
    """Has glibc give back to the system what was freed. It keeps that, between what is in use: after a phase of many tensors that came and
    went easily more than is in use. Without effect on another C library.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
