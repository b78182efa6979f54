"""The box: a file from a user is read by `python -m jobs` in a child process with limits on memory, time, output and reach.

The child starts through `box_entry`, which takes its rights away before the engine is loaded: address space, processor time and file
sizes by rlimits; the network by a namespace of its own; the file system by Landlock, down to the interpreter and the paths that the
caller names; a filter of system calls leaves no socket to the site's own Redis and no way around the rest. All but the first where the
kernel allows them; the answer says so (`"box": {"network": true, "files": true, "calls": true}`).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.errors import GraftError, UserError
from webapp.settings.env import PROJECT

MEBI, GIBI = 2**20, 2**30
STDERR_TAIL_BYTES = 16 * 1024
_ENTRY = Path(__file__).with_name("box_entry.py")
# What the child needs to be the engine: the interpreter, its libraries, the engine's own code.
ENGINE = PROJECT / "jobs"
_INTERPRETER = (Path(sys.prefix), Path(sys.base_prefix))
# Boxes at work in this process at once; each may take `memory_bytes`.
_SLOTS = threading.BoundedSemaphore(4)
# How long a request waits for one: each that waits holds a thread.
_WAIT_SECONDS = 20.0
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Cannot allocate memory", "malloc of size")


@dataclass(frozen=True)
class Limits:
    """What one child may use. `file_bytes` bounds each file that it writes, `output_bytes` what it prints."""

    memory_bytes: int = 4 * GIBI
    cpu_seconds: int = 60
    wall_seconds: float = 90
    file_bytes: int = 64 * MEBI
    open_files: int = 128
    output_bytes: int = 16 * MEBI

    def rlimits(self) -> dict[str, int]:
        """By the names of the `resource` module."""
        return {
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }


QUICK = replace(Limits(), cpu_seconds=10, wall_seconds=15)


class BoxRefusal(UserError):
    """The file cannot be used: the engine said so in the child, or the child met one of its limits."""


def run_in_box(
    arguments: Sequence[str],
    *,
    request: dict[str, Any] | None = None,
    readable: Mapping[Path, str] | Sequence[Path] = (),
    writable: Path | None = None,
    limits: Limits = Limits(),
    network: bool = False,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Runs `python -m jobs ARGUMENTS` in a box and returns the JSON object that it prints, with `box` added.

    `request` goes to its standard input. Of the file system it sees the interpreter, `readable`, and to write `writable` and an empty
    folder of its own. Where `readable` is a mapping, its values are the names by which people know the files: they replace the paths
    in all that comes back. With `on_line` the child prints one object a line: each goes there, and the last is returned.

    Raises `BoxRefusal` where the file is at fault or a limit was met, `GraftError("internal")` where the reader is.
    """
    with _slot(), tempfile.TemporaryDirectory(prefix="graft-box-") as scratch:
        # The child imports the engine through this link: the project's folder itself, and `var` in it, stay out of reach.
        (Path(scratch) / "jobs").symlink_to(ENGINE)
        child = _Child(
            arguments, request=request or {}, readable=[*readable], writable=[writable] if writable else [], limits=limits,
            network=network, environment=environment or {}, scratch=scratch,
        )  # fmt: skip
        return child.run(readable if isinstance(readable, Mapping) else {}, on_line)


@contextmanager
def _slot() -> Iterator[None]:
    """One of the few boxes. Raises `BoxRefusal("box_busy")` where none is free in time."""
    if not _SLOTS.acquire(timeout=_WAIT_SECONDS):
        raise BoxRefusal("box_busy")
    try:
        yield
    finally:
        _SLOTS.release()


class _Child:
    """One process, from its start to the end of its whole group."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        request: dict[str, Any],
        readable: Sequence[Path],
        writable: Sequence[Path],
        limits: Limits,
        network: bool,
        environment: Mapping[str, str],
        scratch: str,
    ) -> None:
        self.limits = limits
        self.deadline = time.monotonic() + limits.wall_seconds
        self.stderr = b""
        self.report, report = os.pipe()
        plan = {
            "parent": os.getpid(),
            "report": report,
            "limits": limits.rlimits(),
            "network": network,
            "readable": [str(path.resolve()) for path in (*readable, ENGINE, *_INTERPRETER)],
            "writable": [scratch, *(str(path.resolve()) for path in writable)],
        }
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(request).encode())
            stdin.seek(0)
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_ENTRY), json.dumps(plan), *arguments],
                stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(report,),
                cwd=scratch, env=_environment(scratch, environment), start_new_session=True,
            )  # fmt: skip
        os.close(report)

    def run(self, names: Mapping[Path, str], on_line: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
        """Reads until the child has ended, and judges how it ended."""
        label = _labeller(names)
        last = b""
        try:
            for line in filter(None, self._lines()):
                if on_line and last:
                    on_line(_json_object(label(last)))
                last = line if on_line else last + line
            isolation = json.loads(os.read(self.report, 4096) or b"{}")
        finally:
            code = self._end()
        if code != 0:
            raise self._failure(code, label(self.stderr))
        return {**_json_object(label(last)), "box": isolation}

    def _lines(self) -> Iterator[bytes]:
        """The lines of standard output until the child has ended; of standard error the tail is kept."""
        stdout, stderr = self.process.stdout, self.process.stderr
        assert stdout is not None and stderr is not None  # noqa: S101, PT018 - for the type checker
        pending: list[bytes] = []
        total = 0
        ended = os.pidfd_open(self.process.pid)
        with selectors.DefaultSelector() as selector, os.fdopen(ended):
            for source in (stdout, stderr, ended):
                selector.register(source, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(self._seconds_left()):
                    if key.fd == ended:
                        # Whatever it has started dies with it, and lets go of the pipes.
                        os.killpg(self.process.pid, signal.SIGKILL)
                        selector.unregister(ended)
                    elif not (chunk := os.read(key.fd, 1 << 16)):
                        selector.unregister(key.fileobj)
                    elif key.fileobj is stderr:
                        self.stderr = (self.stderr + chunk)[-STDERR_TAIL_BYTES:]
                    else:
                        total += len(chunk)
                        self._check_output(total)
                        *complete, rest = chunk.split(b"\n")
                        for part in complete:
                            yield b"".join((*pending, part))
                            pending = []
                        pending.append(rest)
        yield b"".join(pending)

    def _seconds_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise BoxRefusal("box_time", limit=f"{self.limits.wall_seconds:g} seconds")
        return left

    def _check_output(self, total: int) -> None:
        if total > self.limits.output_bytes:
            raise BoxRefusal("box_output", limit=f"{self.limits.output_bytes / MEBI:g} MiB of output")

    def _end(self) -> int:
        """Kills what is left of the group and returns the exit code. The child is not reaped before, so its number is still its own."""
        os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        os.close(self.report)
        return code

    def _failure(self, code: int, stderr: str) -> GraftError:
        """The error that an exit code and the end of standard error amount to."""
        lines = stderr.strip().splitlines() or [""]
        if code > 0 and lines[-1].startswith('{"error"'):
            body = json.loads(lines[-1])["error"]
            return BoxRefusal.worded(body["code"], body["message"], body["remedy"], where=body["where"])
        if code == -signal.SIGXCPU:
            return BoxRefusal("box_time", limit=f"{self.limits.cpu_seconds} seconds of processor time")
        if code == -signal.SIGKILL or any(word in stderr for word in _OUT_OF_MEMORY):
            return BoxRefusal("box_memory", limit=f"{self.limits.memory_bytes / GIBI:g} GiB")
        if code == -signal.SIGXFSZ or "File too large" in stderr:
            return BoxRefusal("box_output", limit=f"{self.limits.file_bytes / MEBI:g} MiB in one file")
        if code < 0:
            return BoxRefusal("box_crashed", reason=signal.Signals(-code).name)
        return GraftError("internal", reason=f"the reader ended with code {code}: {lines[-1][:500]}")


def _labeller(names: Mapping[Path, str]) -> Callable[[bytes], str]:
    """Decodes what the child wrote, with the host's paths replaced by the names that people know."""
    pairs = [(json.dumps(str(path))[1:-1], json.dumps(name)[1:-1]) for path, name in names.items()]

    def label(text: bytes) -> str:
        shown = text.decode("utf-8", "replace")
        for path, name in pairs:
            shown = shown.replace(path, name)
        return shown

    return label


def _json_object(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise GraftError("internal", reason=f"the reader printed no JSON object: {text[:200]!r}")
    return body


def _environment(scratch: str, more: Mapping[str, str]) -> dict[str, str]:
    """What the child knows of its surroundings: no secret is among it."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": scratch,
        "TMPDIR": scratch,
        "PYTHONPATH": scratch,
        "PYTHONDONTWRITEBYTECODE": "1",
        # Each thread's arena reserves address space, which is what the limit counts.
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **more,
    }
