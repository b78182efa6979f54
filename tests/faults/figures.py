"""What `make test-faults` measures, beside what is promised.

A test calls `record`; where nobody collects (`GRAFT_FIGURES` is not set) that does nothing. Of several measurements of one figure the worst
counts, and of things that must not happen the sum.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "GRAFT_FIGURES"


@dataclass(frozen=True)
class Promise:
    """A figure: what it is, its unit (empty for a count) and the most that it may be."""

    words: str
    most: float
    unit: str = "s"


PROMISES: dict[str, Promise] = {
    "restart": Promise("worker killed until its run is running again, clocks of production", 90),
    "restart_short": Promise("the same with shortened clocks (lease 4 s, grace 1 s)", 12),
    "claims": Promise("runs claimed twice, 8 processes over 40 runs", 0, ""),
    "doorbells": Promise("starts by 50 doorbells for one run and 4 workers, beyond the first", 0, ""),
    "overlaps": Promise("two attempts of a run at work at one time", 0, ""),
    "stale": Promise("writes of a stale attempt that were accepted (rows, stream, artifacts)", 0, ""),
    "cut_off": Promise("supervisor cut off from the database until its training is dead (self-fence 3 s)", 4.5),
    "stopped": Promise("supervisor stopped (SIGSTOP) until its training is dead (self-fence 3 s)", 4.5),
    "survivors": Promise("processes of a killed worker that live after 2 s", 0, ""),
    "cancel": Promise("cancel until the process is dead, 99th percentile, clocks of production", 20),
    "sigterm": Promise("SIGTERM to a worker until checkpoint and exit", 60),
    "lost_steps": Promise("steps lost by it", 0, ""),
    "hang": Promise("a child that hangs until it is stopped, beyond the limit set", 30),
    "out_of_memory": Promise("attempts of a run whose child is killed for its memory", 5, ""),
    "after_crash": Promise("a child that dies by MemoryError until the next run is running", 5),
    "poison": Promise("runs that crash until another run is running", 10),
    "launch": Promise("launch while Redis is down until it is accepted", 1),
    "launch_start": Promise("Redis back until the run is running", 30),
    "flushed": Promise("of 20 queued runs, those that did not run exactly once after Redis was emptied", 0, ""),
    "redis_restarts": Promise("last of three restarts of Redis until a new run is running", 35),
    "half_open": Promise("a silent connection to Redis until a new run is running", 60),
    "redis_full": Promise("runs that failed while Redis was full", 0, ""),
    "database_down": Promise("points lost over a restart of PostgreSQL in a run", 0, ""),
    "locked": Promise("'database is locked' with 8 writers and 16 readers", 0, ""),
    "points": Promise("points lost, doubled or out of order over reconnects and restarts", 0, ""),
    "revoked": Promise("access revoked until the socket is closed", 5),
    "torn": Promise("torn checkpoints of 100 kills", 0, ""),
    "unresumed": Promise("kills of the real engine amid saves from which it did not go on", 0, ""),
    "disk_full": Promise("disk full until the run says so", 10),
    "races": Promise("of 20 cancels amid the end, runs without exactly one end", 0, ""),
    "nonfinite": Promise("steps trained on a loss that is not finite", 3, ""),
}


def record(key: str, measured: float, detail: str = "") -> None:
    """Notes a measurement of `PROMISES[key]`. Raises `KeyError` for another key."""
    line = {"key": key, "measured": measured, "detail": detail, "most": PROMISES[key].most}
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """What was recorded."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(lines: Iterable[dict[str, Any]]) -> tuple[str, list[str]]:
    """A Markdown table of all figures, and the keys of those that were not measured or are beyond their promise."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["key"], []).append(line)
    rows, bad = ["| What | At most | Measured | |", "|---|---|---|---|"], []
    for key, promise in PROMISES.items():
        measured = [line["measured"] for line in found.get(key, [])]
        if not measured:
            bad.append(key)
            rows.append(f"| {promise.words} | {_shown(promise.most, promise.unit)} | not measured | |")
            continue
        worst = sum(measured) if promise.most == 0 else max(measured)
        if worst > promise.most:
            bad.append(key)
        details = "; ".join(dict.fromkeys(line["detail"] for line in found[key] if line["detail"]))
        rows.append(f"| {promise.words} | {_shown(promise.most, promise.unit)} | {_shown(worst, promise.unit)} | {details} |")
    return "\n".join(rows), bad


def _shown(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".strip() if unit else f"{value:g}"
