"""The events of a job, the newest first: moves of its run's state, and what the training said.

They are read where they are (history and archive); an event's id says where: `ftevent-{job}-{source}{number}`, `a` what the job itself
did, `h` the history, `r` the archive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from django.db.models import Q

from webapp.api.models import Job
from webapp.api.naming import name_of_checkpoint, name_of_run
from webapp.api.paging import unknown_after
from webapp.files.models import File
from webapp.runs.models import Record, Run, RunEvent
from webapp.runs.states import State

_ID = re.compile(r"ftevent-(?P<job>[0-9a-f]{32})-(?P<source>[ahr])(?P<number>[0-9]{1,18})")
_SAID = ("step", "eval", "checkpoint", "warning")
_MOVES = {
    State.STARTING: "Fine-tuning job started.",
    State.FINALIZING: "Training is done; the model is being saved.",
    State.PAUSED: "Fine-tuning job paused.",
    State.INTERRUPTED: "The job's worker was lost; it will go on from its last checkpoint.",
    State.CANCELLED: "Fine-tuning job cancelled.",
}
# Moments of the history go through a float; what is not before the place is left out afterwards.
_SLACK_SECONDS = 0.001
# In a list of the same moment, the later of a job's life first.
_RANK = {"a": 0, "h": 1, "r": 2}


@dataclass(frozen=True)
class Event:
    """One event. `at` in seconds since the epoch."""

    id: str
    at: float
    message: str
    level: Literal["info", "warn", "error"] = "info"
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] = field(default_factory=dict)


_Place = tuple[float, int, int]


def events_of(job: Job | None, run: Run | None, hexa: str, after: str | None, limit: int) -> tuple[list[Event], bool]:
    """At most `limit` events before the one with the id `after`, and whether there are more. Raises `ApiError` 400 for another `after`."""
    sources = [_of_job(job, hexa)] if job else []
    before = _place_of(job, run, hexa, after) if after else None
    if run is not None:
        sources += [_of_history(run, hexa, before, limit), _of_archive(run, hexa, before, limit)]
    rows = sorted((row for source in sources for row in source if before is None or row[0] < before), key=lambda row: row[0], reverse=True)
    return [event for _place, event in rows[:limit]], len(rows) > limit


def _place_of(job: Job | None, run: Run | None, hexa: str, after: str) -> _Place:
    match = _ID.fullmatch(after)
    if match is None or match["job"] != hexa:
        raise unknown_after(after)
    number, source = int(match["number"]), match["source"]
    at: float | None = None
    if source == "a" and job is not None:
        at = next((place[0] for place, _event in _of_job(job, hexa) if place[2] == number), None)
    elif source == "h" and run is not None:
        row = RunEvent.objects.filter(run=run, seq=number).first()
        at = row.at.timestamp() if row else None
    elif source == "r" and run is not None:
        at = Record.objects.filter(run=run, pk=number, kind__in=_SAID).values_list("at", flat=True).first()
    if at is None:
        raise unknown_after(after)
    return (at, _RANK[source], number)


def _of_job(job: Job, hexa: str) -> Iterator[tuple[_Place, Event]]:
    at = job.created_at.timestamp()
    said = [(at, "info", f"Created fine-tuning job: ftjob-{hexa}"), (at, "info", f"Validating training file: {_name(job.training_file)}")]
    if job.validation_file:
        said.append((at, "info", f"Validating validation file: {_name(job.validation_file)}"))
    if job.ended_at:
        ended = job.ended_at.timestamp()
        said.append((ended, "error", job.error["message"]) if job.error else (ended, "info", _MOVES[State.CANCELLED]))
    for number, (moment, level, message) in enumerate(said):
        place = (moment, _RANK["a"], number)
        yield place, Event(f"ftevent-{hexa}-a{number}", moment, message, level)  # type: ignore[arg-type]


def _of_history(run: Run, hexa: str, before: _Place | None, limit: int) -> Iterator[tuple[_Place, Event]]:
    rows = RunEvent.objects.filter(run=run).order_by("-at", "-seq")
    if before is not None:
        rows = rows.filter(at__lte=datetime.fromtimestamp(before[0] + _SLACK_SECONDS, UTC))
    for row in rows[: limit + 10]:
        at = row.at.timestamp()
        yield (at, _RANK["h"], row.seq), Event(f"ftevent-{hexa}-h{row.seq}", at, _move(run, row), _level(row))


def _of_archive(run: Run, hexa: str, before: _Place | None, limit: int) -> Iterator[tuple[_Place, Event]]:
    rows = Record.objects.filter(run=run, kind__in=_SAID).order_by("-at", "-pk")
    if before is not None:
        same = Q(at=before[0], pk__lt=before[2]) if before[1] == _RANK["r"] else Q(at=before[0])
        rows = rows.filter(Q(at__lt=before[0]) | same)
    for row in rows[: limit + 1]:
        yield (row.at, _RANK["r"], row.pk), _said(run, row, hexa)


def _name(file: File) -> str:
    return f"file-{file.pk.hex}"


def _level(row: RunEvent) -> Literal["info", "warn", "error"]:
    return "error" if row.to_state == State.FAILED else "warn" if row.to_state == State.INTERRUPTED else "info"


def _move(run: Run, row: RunEvent) -> str:
    to = State(row.to_state)
    if to == State.QUEUED:
        return "Files validated, moving job to queued state." if row.seq <= 1 else "Fine-tuning job queued again."
    if to == State.FAILED:
        return f"{run.message} {run.remedy}".strip() or "Fine-tuning job failed."
    if to == State.SUCCEEDED:
        return f"New fine-tuned model created: {name_of_run(run)}. The job has successfully completed."
    if row.detail.startswith("asked: "):
        return f"Asked to {row.detail.removeprefix('asked: ')}."
    return _MOVES.get(to, f"Fine-tuning job {to.value}.")


def _said(run: Run, row: Record, hexa: str) -> Event:
    data, ident = row.data, f"ftevent-{hexa}-r{row.pk}"
    if row.kind == "step":
        metrics = {"step": row.step, "total_steps": run.total_steps, "train_loss": data.get("loss")}
        loss = data.get("loss")
        words = f"Step {row.step}/{run.total_steps}" + (f": training loss={loss:.4f}" if isinstance(loss, int | float) else "")
        return Event(ident, row.at, words, type="metrics", data=metrics | {"learning_rate": data.get("learning_rate")})
    if row.kind == "eval":
        metrics = {name: data[name] for name in ("step", "split", "model", "loss", "token_accuracy") if name in data}
        loss = data.get("loss")
        words = f"{data.get('model')} model on {data.get('split')} rows" + (f": loss={loss:.4f}" if isinstance(loss, int | float) else "")
        return Event(ident, row.at, words, type="metrics", data=metrics)
    if row.kind == "checkpoint":
        return Event(ident, row.at, f"Checkpoint created at step {row.step}: {name_of_checkpoint(run, int(row.step or 0))}")
    return Event(ident, row.at, f"{data.get('message', '')} {data.get('remedy', '')}".strip(), "warn", data={"code": data.get("code")})
