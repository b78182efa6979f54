"""What must last over a power cut: the bytes of a file, and the name that a rename has given it."""

from __future__ import annotations

import os
from pathlib import Path


def fsync_file(path: Path) -> None:
    """Forces a file's bytes to disk. Raises `OSError`."""
    _fsync(path)


def fsync_folder(folder: Path) -> None:
    """Makes a rename within `folder` last. Raises `OSError`."""
    _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
