"""What only a living attempt needs, removed when it is over: by its supervisor, or by the reaper where that was lost."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path


def sweep(folder: Path) -> None:
    """Removes from an attempt's folder its temporary files, its leash, and checkpoints that were being written or deleted. The training
    must be dead; whatever is gone already is no error.
    """
    for path in (folder / "tmp", *(folder / "checkpoints").glob(".tmp-*")):
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        (folder / "leash").unlink()
