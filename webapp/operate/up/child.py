"""One supervised process: started in a session of its own, its output prefixed and kept, restarted with growing pauses when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from webapp.core.processes import PARENT_VARIABLE, signal_group
from webapp.operate.up.commands import Process
from webapp.settings.env import PROJECT

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
SETTLED_SECONDS = 60.0
_LOG_BYTES = 5 * 2**20
_NAME_WIDTH = 10
# What only `prepare` needs; a process that does not know a password cannot show it.
_WITHHELD = ("GRAFT_ADMIN_PASSWORD",)


class Child:
    """Keeps one process alive until it is told to stop. It dies with its supervisor, whatever happens to that."""

    def __init__(self, process: Process, logs: Path) -> None:
        self.process = process
        self.pid: int | None = None
        self.restarts = 0
        self._over = asyncio.Event()
        self._running: asyncio.subprocess.Process | None = None
        self._log = logging.getLogger(f"graft.up.{process.name}.{id(self)}")
        self._log.propagate = False
        self._log.setLevel(logging.INFO)
        self._file = RotatingFileHandler(logs / f"{process.name}.log", maxBytes=_LOG_BYTES, backupCount=2)
        self._log.addHandler(self._file)

    async def run(self) -> None:
        """Starts the process, and again whenever it ends, until `stop`."""
        pause = FIRST_PAUSE_SECONDS
        while not self._over.is_set():
            started = time.monotonic()
            code = await self._once()
            if self._over.is_set():
                break
            if time.monotonic() - started >= SETTLED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self.say(f"ended with {code}, starts again in {pause:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            self.restarts += 1
        self._file.close()

    async def _once(self) -> int:
        environment = {name: value for name, value in os.environ.items() if name not in _WITHHELD}
        environment |= {PARENT_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1", **self.process.environment}
        # The launcher asks the kernel for this process's death at ours, then becomes the program.
        command = (sys.executable, "-m", "webapp.core.processes", *self.process.command)
        self._running = await asyncio.create_subprocess_exec(
            *command,
            cwd=PROJECT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._running.pid
        if self._over.is_set():
            self.signal(signal.SIGTERM)
        assert self._running.stdout is not None  # noqa: S101
        reading = asyncio.create_task(self._copy(self._running.stdout))
        code = await self._running.wait()
        # What it left behind in its own group goes with it; its pipe may be held open by those.
        signal_group(self.pid, signal.SIGKILL)
        self.pid = None
        await reading
        return code

    async def _copy(self, output: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await output.readuntil(b"\n")
            except asyncio.IncompleteReadError as rest:
                line = rest.partial
            except asyncio.LimitOverrunError as overrun:
                line = await output.read(overrun.consumed)
            if not line:
                return
            self.say(line.decode(errors="replace").rstrip("\n"))

    def say(self, line: str) -> None:
        """Writes one line of the process to its log and, with its name before it, to our output."""
        self._log.info(line)
        # A closed terminal must not take the site down.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.write(f"{self.process.name:<{_NAME_WIDTH}} | {line}\n")
            sys.stdout.flush()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._running is not None and self._running.returncode is None

    def stop(self) -> None:
        """Asks the process to end (SIGTERM, to it alone: it tells its own children), and has it not started again."""
        self._over.set()
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if it lives."""
        if self._running is not None and self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._running.send_signal(number)

    def kill(self) -> None:
        """Kills the process and its group."""
        if self.pid is not None:
            signal_group(self.pid, signal.SIGKILL)
