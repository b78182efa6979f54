"""The self-fence: a thread that kills our own training when the lease could not be renewed for too long.

It asks nobody. A supervisor that is cut off from the database may be stuck in a call that never returns; its training must be dead before
the reaper gives the run to another worker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from jobs.leash import clock, let_out
from webapp.settings.env import ENV

__all__ = ["Fence", "clock"]
log = logging.getLogger(__name__)

TICK_SECONDS = 0.2


class Fence(threading.Thread):
    """Calls `kill` when `ENV.self_fence_seconds` have gone by since the last renewal, and from then on. `leash` is the child's: if this
    process is stopped, the child ends itself at the same moment (`jobs.leash`).
    """

    def __init__(self, kill: Callable[[], None], *, renewed_at: float, leash: Path) -> None:
        super().__init__(name="fence", daemon=True)
        self._kill = kill
        self._renewed_at = renewed_at
        self._leash = leash
        self._over = threading.Event()
        self._killed = self._child_gone = False

    def renewed(self, at: float) -> None:
        """The lease was renewed by a question that was sent `at` (by `clock`)."""
        self._renewed_at = at
        self.let_out()

    def let_out(self) -> None:
        """Tells the child until when it may work."""
        if self._child_gone:
            return
        try:
            let_out(self._leash, self._renewed_at + ENV.self_fence_seconds)
        except OSError as failure:
            log.warning("%s: the child cannot be told that it may go on (%s)", self._leash, failure)

    def child_gone(self) -> None:
        """The child is dead: from now on there is nobody to be told."""
        self._child_gone = True

    @property
    def fired(self) -> bool:
        """Whether too long has gone by, once and for all. By the clock, not only by what the thread has done: who was stopped and
        wakes up may come here before its thread does, with a training that has ended itself by its leash.
        """
        self._killed |= clock() - self._renewed_at > ENV.self_fence_seconds
        return self._killed

    def run(self) -> None:
        """Watches the clock until `stop`."""
        while not self._over.wait(min(TICK_SECONDS, ENV.self_fence_seconds / 4)):
            if self.fired:
                self._kill()

    def stop(self) -> None:
        """Ends the watch."""
        self._over.set()
        if self.is_alive():
            self.join()
