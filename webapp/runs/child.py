"""The child that does a run's work: a process group of its own, in an environment without secrets, that dies with us."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from jobs.handover import HandOver
from webapp.core.processes import group_members, signal_group
from webapp.runs.environment import child_environment
from webapp.runs.kinds import COMMANDS, Kind
from webapp.runs.leftovers import sweep
from webapp.runs.standby import Standby
from webapp.settings.env import ENV, PROJECT

# What is started for each kind of run.
PROGRAMS: dict[Kind, tuple[str, ...]] = {kind: (sys.executable, "-m", "jobs", command) for kind, command in COMMANDS.items()}
LOG_TAIL_BYTES = 4096
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[^\n\t\x20-\x7e\xa0-\U0010ffff]")


class RunChild:
    """One process of the engine with its folder: `spec.json`, `events.jsonl`, `child.log`, and what the engine writes beside them."""

    def __init__(
        self, folder: Path, *, kind: Kind = Kind.TRAIN, command: tuple[str, ...] | None = None, standby: Standby | None = None
    ) -> None:
        self.folder = folder
        self.events = folder / "events.jsonl"
        self.log = folder / "child.log"
        self.leash = folder / "leash"
        self._command = command or PROGRAMS[kind]
        self._kind, self._standby = kind, standby
        self._process: subprocess.Popen[bytes] | None = None
        self._gone = False

    def start(self, spec: dict[str, Any], resume: list[Path], *, token_cache: Path) -> None:
        """Writes the folder and starts the program, or tells the one that was started ahead; `spec` is that of the kind, as JSON, `resume`
        are folders that may hold checkpoints, `token_cache` is where token ids are kept. Raises `OSError`.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(mode=0o700, exist_ok=True)
        path = self.folder / "spec.json"
        path.write_text(json.dumps(spec, indent=1), encoding="utf-8")
        told = HandOver(
            spec=str(path),
            out=str(self.folder),
            resume=tuple(map(str, resume)),
            token_cache=str(token_cache),
            token_cache_bytes=ENV.token_cache_bytes,
            log=str(self.log),
            leash=str(self.leash),
            private=str(ENV.var.resolve()),
        )
        with self.log.open("ab") as output:
            self._process = self._take(told) or self._popen(self._line(told), output)

    def _take(self, told: HandOver) -> subprocess.Popen[bytes] | None:
        """The process that waits, where there is one and it can do this."""
        if self._standby and self._kind != Kind.TRAIN:
            # It can only train, and would hold its memory meanwhile.
            self._standby.stop()
            return None
        return self._standby.take(told) if self._standby else None

    def _line(self, told: HandOver) -> list[str]:
        """The command line that says the same."""
        from_folders = ["--resume", *told.resume] if told.resume else []
        cache = ["--token-cache", told.token_cache, "--token-cache-bytes", str(told.token_cache_bytes)]
        held = ["--parent-pid", str(os.getpid()), "--leash", told.leash, "--private", told.private]
        return [*self._command, told.spec, "--out", told.out, *from_folders, *cache, *held]

    def _popen(self, command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=PROJECT,
            env=child_environment(self.folder / "tmp"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int:
        """The pid of the process, which is the id of its group as well. Only after `start`."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    def terminate(self) -> None:
        """Asks the whole group to stop (SIGTERM): the engine writes a checkpoint and exits with 75."""
        self._signal(signal.SIGTERM)

    def finish(self) -> None:
        """Asks the engine to end its training after the step in hand (SIGUSR1), then to measure and export. Only once it has written an
        event: before it listens, the signal would kill it. Its own children do not listen, so it alone is asked.
        """
        if self._process:
            self._process.send_signal(signal.SIGUSR1)

    def dump(self) -> None:
        """Asks the engine for the stack of every thread, in its log (SIGUSR2). Only once it has written an event, as above."""
        if self._process:
            self._process.send_signal(signal.SIGUSR2)

    def kill(self) -> None:
        """Kills the whole group (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # A group that was seen gone is never signalled again: its number may belong to somebody else by then.
        if self._process and not self._gone:
            signal_group(self.pid, number)

    @property
    def is_gone(self) -> bool:
        """Whether no process of the group is left, grandchildren included."""
        if not self._gone:
            self._gone = self._process is None or (self._process.poll() is not None and not group_members(self.pid))
        return self._gone

    def clean(self) -> None:
        """Removes what only the process needed. Only when it is gone."""
        sweep(self.folder)

    def log_tail(self) -> str:
        """The last 4 KB of its output as plain text: no control characters, no paths of this host."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
                text = file.read(LOG_TAIL_BYTES).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        text = text.replace(str(self.folder), "run").replace(str(PROJECT), "graft")
        return _CONTROL.sub("", text).strip()
