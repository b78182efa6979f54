"""The leash of a child: until when it may work without a word of its supervisor.

A supervisor that dies takes its child with it, by the kernel, and one that is cut off from the database kills it. One that is stopped or
hangs can do neither, and another worker will be given its run: so it writes down, at each renewal of the lease, until when the child may
work, and a child past that moment kills itself.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

TICK_SECONDS = 0.5
_WIDTH = 24


def clock() -> float:
    """Seconds that go on while the machine sleeps, the same in every process of this host."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def let_out(path: Path, until: float) -> None:
    """Lets the child work `until` then (by `clock`). Written in place: a disk that is full has room for it. Raises `OSError`."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(handle, f"{until:.3f}".rjust(_WIDTH).encode(), 0)
    finally:
        os.close(handle)


class Leash(threading.Thread):
    """Looks at the file `path` and ends this process, with its group where it leads one, when its time is over."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="leash", daemon=True)
        self._path = path
        self._spoken = False

    def run(self) -> None:
        """Looks, until the process ends."""
        while True:
            self.look()
            time.sleep(TICK_SECONDS)

    def look(self) -> None:
        """Ends this process if its time is over. To be called before anything is written, too: who was stopped wakes up anywhere."""
        if self.is_over:
            end = os.killpg if os.getpgid(0) == os.getpid() else os.kill
            end(os.getpid(), signal.SIGKILL)

    @property
    def is_over(self) -> bool:
        """Whether the time is over. A file that is not there yet says nothing; one that was there and is gone has been taken away with
        all else that a lost attempt left.
        """
        try:
            until = float(self._path.read_bytes())
        except FileNotFoundError:
            return self._spoken
        except (OSError, ValueError):
            return False
        self._spoken = True
        return clock() > until
