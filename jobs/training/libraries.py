"""The compiled regions of a run: taken where they are, made in the background where they are missing and the run is long enough."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from jobs.geometry import Geometry
from jobs.training import region
from jobs.training.compiling import to_json

# Making the libraries of a model takes one to two minutes of a core: a run that ends sooner would only be slowed down.
WORTH_SECONDS = 300.0
# The lowest priority: the run that waits for the libraries comes first.
NICENESS = 19


class Libraries:
    """Switches a process to compiled regions.

    `exact`: the whole run computes one way, so that a resumed one gives the same bits: it is compiled from the first step on or not at
    all. Otherwise training starts as it can and switches between two steps, once what was missing has been made.
    """

    def __init__(self, folder: Path | None, *, exact: bool) -> None:
        self.in_use, self._folder, self._exact = folder is not None, folder, exact
        self._missing: list[Geometry] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._tried = False
        region.use_libraries(folder)

    def go_on(self, *, compiled: bool) -> None:
        """As a run did whose checkpoint is continued."""
        if self._exact and not compiled:
            self._leave()

    def _leave(self) -> None:
        self.in_use = False
        region.use_libraries(None)

    def after_step(self, seconds_left: float) -> None:
        """To be called between two steps; `seconds_left` is what is left of the run at least, 0 as long as nobody can tell."""
        if self._process is not None:
            if self._process.poll() is not None:
                self._process = None
                region.look_again()
            return
        if self.in_use:
            self._missing = region.wanted()
            if self._exact and self._missing:
                self._leave()
        if self._missing:
            self._make(seconds_left)

    def _make(self, seconds_left: float) -> None:
        """Starts the compiler on what is missing, once, at the lowest priority."""
        if self._tried or seconds_left < WORTH_SECONDS or self._folder is None or not has_compiler():
            return
        self._tried = True
        self._process = start_compiler(self._missing, self._folder)

    def close(self) -> None:
        """Ends the compiler; what it has finished stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def least_seconds(steps_left: int, recent: Collection[float]) -> float:
    """What is left of a run at least, by the fastest of its `recent` steps (seconds). 0 before there are three: the first ones are slow,
    and so is one in which the process was suspended.
    """
    return steps_left * min(recent) if len(recent) >= 3 else 0.0


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which inductor needs."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def start_compiler(geometries: Sequence[Geometry], folder: Path) -> subprocess.Popen[bytes]:
    """Starts a process that makes these libraries, one after the other, at the lowest priority; it ends when its caller does."""
    command = ["nice", "-n", str(NICENESS), sys.executable, "-m", "jobs.training.compiling", str(folder), str(os.getpid())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None  # noqa: S101 for mypy: it is a pipe
    process.stdin.write(to_json(geometries).encode())
    process.stdin.close()
    return process
