"""A figure of a page beside its target, and the table of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """What was measured: median and 95th percentile in `unit`, the most that the percentile may be (None: nothing is promised), a note."""

    what: str
    median: float
    p95: float
    unit: str
    target: float | None
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the target is kept."""
        return self.target is None or self.p95 <= self.target


def timed(what: str, call: Callable[[], object], *, rounds: int, target_ms: float | None, warm: int = 3, note: str = "") -> Measured:
    """Calls `rounds` times after `warm` calls that are not counted; the times in milliseconds."""
    for _ in range(warm):
        call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return Measured(what, statistics.median(times), percentile(times, 0.95), "ms", target_ms, note)


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def table(rows: Sequence[Measured]) -> str:
    """The figures as a Markdown table."""
    lines = ["| what | median | 95 % | target | | note |", "|---|---:|---:|---:|---|---|"]
    for row in rows:
        target = "" if row.target is None else f"{row.target:g} {row.unit}"
        kept = "" if row.target is None else "kept" if row.holds else "**missed**"
        lines.append(f"| {row.what} | {row.median:.1f} {row.unit} | {row.p95:.1f} {row.unit} | {target} | {kept} | {row.note} |")
    return "\n".join(lines)
