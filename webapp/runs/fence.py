"""The self-fence: a thread that kills our own training when the lease could not be renewed for too long.

It asks nobody. A supervisor that is cut off from the database may be stuck in a call that never returns; its training must be dead before
the reaper gives the run to another worker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from webapp.settings.env import ENV

TICK_SECONDS = 0.2


def clock() -> float:
    """Seconds that go on while the machine sleeps: the database's lease does not wait for us either."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence(threading.Thread):
    """Calls `kill` when `ENV.self_fence_seconds` have gone by since the last renewal, and from then on."""

    def __init__(self, kill: Callable[[], None], *, renewed_at: float) -> None:
        super().__init__(name="fence", daemon=True)
        self._kill = kill
        self._renewed_at = renewed_at
        self._over = threading.Event()
        self.fired = False

    def renewed(self, at: float) -> None:
        """The lease was renewed by a question that was sent `at` (by `clock`)."""
        self._renewed_at = at

    def run(self) -> None:
        """Watches the clock until `stop`."""
        while not self._over.wait(min(TICK_SECONDS, ENV.self_fence_seconds / 4)):
            if clock() - self._renewed_at > ENV.self_fence_seconds:
                self.fired = True
                self._kill()

    def stop(self) -> None:
        """Ends the watch."""
        self._over.set()
        if self.is_alive():
            self.join()
