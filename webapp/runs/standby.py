"""The next training process of a worker, started ahead: its imports are done when a run comes, so that the run starts at once.

It belongs to one process of the worker (the one that supervises), dies with it, knows nothing of any run until it is told, and then is
that run's child and no other's: own session, same environment, output in the run's log. One that died while it waited is passed over. While
a run trains none waits, so that it takes no memory from the training.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from jobs.handover import HandOver
from webapp.core.processes import signal_group
from webapp.runs.environment import child_environment
from webapp.settings.env import ENV, PROJECT

COMMAND = (sys.executable, "-m", "jobs", "standby")
log = logging.getLogger(__name__)


class Standby:
    """At most one waiting process of the worker `owner`, whose own folder (its home) is `<var>/standby/<owner>`."""

    def __init__(self, owner: str, *, command: tuple[str, ...] | None = None) -> None:
        self.home = Path(settings.GRAFT_VAR) / "standby" / owner
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts a process to wait, unless `GRAFT_WARM_CHILD` says no. Call it from the main thread (the kernel kills the process when
        the thread that started it ends), and only when no training of this worker runs: the folder is emptied.
        """
        if not ENV.warm_child:
            return
        self.stop()
        try:
            shutil.rmtree(self.home, ignore_errors=True)
            self.home.mkdir(mode=0o700, parents=True)
            with (self.home / "standby.log").open("wb") as output:
                self._process = subprocess.Popen(
                    [*(self._command or COMMAND), "--parent-pid", str(os.getpid())],
                    cwd=PROJECT,
                    env=child_environment(self.home),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as failure:
            log.warning("no process waits for the next run (%s): it will start from scratch", failure)

    @property
    def pid(self) -> int | None:
        """The pid of the process that waits; None where none does."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def take(self, told: HandOver) -> subprocess.Popen[bytes] | None:
        """Gives the waiting process its run and the process away. None where there is none, or it has died."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None  # noqa: S101
        try:
            # A line is far shorter than a pipe's buffer, so that this never waits for the reader.
            with process.stdin as pipe:
                pipe.write(told.to_line())
        except OSError as failure:
            log.warning("the process that waited for a run is gone (exit code %s, %s)", process.poll(), failure)
            _end(process)
            return None
        return process

    def stop(self) -> None:
        """Ends the process that waits, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that has no run, and reaps it."""
    if process.poll() is None:
        signal_group(process.pid, signal.SIGKILL)
    with suppress(OSError):
        if process.stdin:
            process.stdin.close()
    process.wait()
