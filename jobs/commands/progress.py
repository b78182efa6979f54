"""How a command that takes its time tells how far it is."""

from __future__ import annotations

import sys
import time

from jobs.events import Event

# At most so many lines a second: one bar needs no more.
LINE_SECONDS = 0.25


class PhaseProgress:
    """`progress(done, total)` of one phase: a `phase` event a line on standard output, or a line for a person on standard error."""

    def __init__(self, phase: str, unit: str, *, as_json: bool) -> None:
        """`phase` and `unit` are those of a `phase` event (see `jobs.events`)."""
        self._phase, self._unit, self._as_json = phase, unit, as_json
        self._seq = 0
        self._told = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        """Tells it, unless it told so just before; the end is always told."""
        now = time.monotonic()
        if now - self._told < LINE_SECONDS and done < total:
            return
        self._told = now
        self._seq += 1
        if self._as_json:
            data = {"name": self._phase, "done": done, "total": total, "unit": self._unit}
            sys.stdout.write(Event(self._seq, time.time(), "phase", data).to_line())
            sys.stdout.flush()
        else:
            sys.stderr.write(f"{done:,} of {total:,} {self._unit}\n")
