"""Where the programs keep what they can make anew."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Graft's folder in the user's cache, where the XDG base directory specification puts it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graft"
