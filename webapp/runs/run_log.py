"""The log of a run: its messages, warnings, checkpoints and phases as lines, searched and whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webapp.core import formats
from webapp.runs.models import Record, Run

LOG_LINES = 400
# A search looks through so many of the newest records; what is older is in the file.
SEARCHED = 20_000
KINDS = ("log", "warning", "phase", "checkpoint", "finished")
PHASES = {
    "downloading": gettext_lazy("Downloading the base model"),
    "loading": gettext_lazy("Loading the base model"),
    "tokenizing": gettext_lazy("Tokenizing the rows"),
    "training": gettext_lazy("Training"),
    "evaluating": gettext_lazy("Evaluating"),
    "analysing": gettext_lazy("Looking at the gradients"),
    "comparing": gettext_lazy("Comparing bits"),
    "merging": gettext_lazy("Merging"),
    "saving": gettext_lazy("Saving"),
}


@dataclass(frozen=True)
class Line:
    """One line of the log: when (seconds since the epoch), what, and whether it is a warning or an error."""

    at: float
    words: str
    look: str


def log(run: Run, wanted: str = "") -> dict[str, Any]:
    """The last lines of the log, oldest first; with `wanted` only those that contain it, whatever the case."""
    wanted = wanted.strip()
    lines = list(_lines(_newest(run, SEARCHED if wanted else LOG_LINES * 4)))
    found = [line for line in lines if wanted.casefold() in line.words.casefold()]
    return {"lines": found[-LOG_LINES:], "log_wanted": wanted, "log_found": len(found), "log_shown": min(len(found), LOG_LINES)}


def _newest(run: Run, most: int) -> list[Record]:
    """The last records that the log tells of, oldest first. Each kind is asked for by itself, which its index answers: in the order of all
    kinds the steps would be gone through, a hundred thousand of them in a long run.
    """
    found = [record for kind in KINDS for record in run.records.filter(kind=kind).order_by("-attempt", "-seq")[:most]]
    return sorted(found, key=lambda record: (record.attempt, record.seq))[-most:]


def every_line(run: Run) -> Iterator[Line]:
    """The whole log, oldest first."""
    return _lines(run.records.filter(kind__in=KINDS).order_by("attempt", "seq").iterator(chunk_size=2000))


def last_words(run: Run) -> Line | None:
    """The last line before the end of a run that failed: an error or a warning if there is one among the last, else the last of all."""
    records = list(reversed(run.records.filter(kind__in=("log", "warning")).order_by("-attempt", "-seq")[:5]))
    lines = [_line(record) for record in records]
    return next((line for line in reversed(lines) if line.look), lines[-1] if lines else None)


def _lines(records: Iterable[Record]) -> Iterator[Line]:
    """A phase reports its progress many times over; in the log it begins once."""
    for before, record in pairwise(_after_none(records)):
        assert record is not None  # noqa: S101 - for the type checker
        again = before is not None and before.kind == record.kind == "phase" and before.data["name"] == record.data["name"]
        if not again:
            yield _line(record)


def _after_none(records: Iterable[Record]) -> Iterator[Record | None]:
    yield None
    yield from records


def _line(record: Record) -> Line:
    data = record.data
    match record.kind:
        case "phase":
            return Line(record.at, str(PHASES.get(data["name"], data["name"])), "")
        case "checkpoint":
            words = _("Checkpoint of step %(step)s, %(size)s") % {"step": data["step"], "size": formats.format_bytes(data.get("bytes"))}
            return Line(record.at, words, "")
        case "warning":
            return Line(record.at, f"{data.get('message', '')} {data.get('remedy', '')}".strip(), "warn")
        case "finished":
            failed = data.get("outcome") == "failed"
            words = _("Finished: %(outcome)s. %(message)s") % {"outcome": data.get("outcome"), "message": data.get("message") or ""}
            return Line(record.at, words.strip(), "err" if failed else "")
    looks = {"warning": "warn", "error": "err"}
    return Line(record.at, str(data.get("message", "")), looks.get(str(data.get("level", "")).lower(), ""))
