"""How far a child in the box is: written to a row while it works, and read from there by pages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet

WRITTEN_SECONDS = 1.0


class RowProgress:
    """Takes the lines of a child (`run_in_box(on_line=...)`) and writes its `phase` events to `progress` of a row, at most one a second.

    Beside `name done total unit` stands `started`, the second since the epoch at which the phase began.
    """

    def __init__(self, row: QuerySet[Any, Model]) -> None:
        self._row = row
        self._written = float("-inf")
        self._phase = ""
        self._started = 0.0

    def __call__(self, line: dict[str, Any]) -> None:
        """One line of the child."""
        if line.get("kind") != "phase":
            return
        data = line["data"]
        if data["name"] != self._phase:
            self._phase, self._started = data["name"], time.time()
        if time.monotonic() - self._written >= WRITTEN_SECONDS:
            self._written = time.monotonic()
            self._row.update(progress={**data, "started": self._started})


@dataclass(frozen=True)
class Standing:
    """How far something is: `share` from 0 to 1 (None: not known) and `seconds` that are left of this phase (None: too early to say)."""

    phase: str
    done: int
    total: int
    share: float | None
    seconds: float | None


def standing(progress: Mapping[str, Any], now: float | None = None) -> Standing | None:
    """What a page says of a row's `progress`; None where nothing has been said yet. `now` is in seconds since the epoch."""
    if not progress:
        return None
    done, total = int(progress["done"]), int(progress["total"] or 0)
    share = min(1.0, done / total) if total else None
    elapsed = (time.time() if now is None else now) - progress["started"]
    seconds = elapsed * (1 - share) / share if share and elapsed > 2 else None
    return Standing(progress["name"], done, total, share, seconds)
