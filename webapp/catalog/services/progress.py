"""How far the adding of a model is, written to its row: phase, bytes, rate and time to go."""

from __future__ import annotations

import time
from typing import Any

from webapp.catalog.models import BaseModel

INTERVAL_SECONDS = 1.0
# A rate of less time than this says nothing yet.
_SETTLED_SECONDS = 2.0


class Gone(Exception):
    """The model was deleted while it was being added."""


class Progress:
    """Writes `name done total unit` of a phase, with `rate` (bytes a second) and `eta_seconds` once known, at most once a second."""

    def __init__(self, model: BaseModel) -> None:
        self._rows = BaseModel.objects.filter(pk=model.pk, state=BaseModel.State.FETCHING)
        self._written = float("-inf")
        self._phase = ""
        self._began, self._begin = 0.0, 0

    def line(self, line: dict[str, Any]) -> None:
        """A `phase` line of the child. Raises `Gone`."""
        if line.get("kind") == "phase":
            self.tell(line["data"]["name"], line["data"]["done"], line["data"]["total"])

    def tell(self, name: str, done: int, total: int) -> None:
        """So many bytes of the phase `name` are done. Raises `Gone`, and so ends the child that tells it."""
        now = time.monotonic()
        if name != self._phase:
            # What was there already, of a download that goes on, is not counted into the rate.
            self._phase, self._began, self._begin = name, now, done
        if now - self._written < INTERVAL_SECONDS and done < total:
            return
        self._written = now
        body: dict[str, Any] = {"name": name, "done": done, "total": total, "unit": "bytes"}
        elapsed = now - self._began
        if elapsed >= _SETTLED_SECONDS and done > self._begin:
            rate = (done - self._begin) / elapsed
            body |= {"rate": round(rate), "eta_seconds": round((total - done) / rate, 1)}
        if self._rows.update(progress=body) != 1:
            raise Gone
