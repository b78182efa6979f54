"""What the page of workers and queue shows to a team: every worker of the site, and every queue in the order in which it is taken.

What belongs to other teams is there without a name. A constant number of queries for each queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils.timezone import now

from webapp.accounts.models import Team
from webapp.core.formats import number_of
from webapp.quotas.services.limits import Hold
from webapp.runs.models import Run, Worker
from webapp.runs.order import Turn, turns
from webapp.runs.priorities import Priority
from webapp.runs.services.status import progress
from webapp.runs.states import WANTS_WORK, State
from webapp.settings.env import ENV
from webapp.work.outbox import TRAIN_QUEUE

# So many heartbeats may be late before a worker is called lost.
LATE_BEATS = 3
SHOWN = 100


@dataclass(frozen=True)
class Machine:
    """A worker: `state` is idle, busy, draining (ends its run, or has none) or lost; `run` only where it belongs to the team that looks."""

    worker: Worker
    state: str
    busy: bool
    run: Run | None
    progress: float
    eta_seconds: float | None
    silent_seconds: float
    memory_used_bytes: float | None
    memory_bytes: float | None

    @property
    def memory_share(self) -> float | None:
        """How much of its memory is taken, from 0 to 1."""
        return min(1.0, (self.memory_used_bytes or 0) / self.memory_bytes) if self.memory_bytes and self.memory_used_bytes else None


@dataclass(frozen=True)
class Place:
    """A waiting run in its turn; `run` only where it belongs to the team that looks. `first` and `last` of its team's line of its priority.

    `starts_seconds` is how long it will wait at most, by what the workers say of the runs they have; None where that is not known.
    """

    number: int
    run_id: UUID
    run: Run | None
    priority: Priority
    queued_at: datetime
    hold: Hold | None
    starts_seconds: float | None
    first: bool
    last: bool


@dataclass(frozen=True)
class Pool:
    """A queue with the workers that serve it. `places` are the first `SHOWN` of `waiting`."""

    name: str
    machines: list[Machine]
    places: list[Place]
    waiting: int

    @property
    def takers(self) -> int:
        """How many workers take runs."""
        return sum(machine.state in ("idle", "busy") for machine in self.machines)


def pools(team: Team) -> list[Pool]:
    """Every queue that has a worker or a waiting run, by name; the training queue always."""
    moment = now()
    machines = [machine_of(worker, team, moment) for worker in Worker.objects.select_related("run").order_by("name")]
    names = {TRAIN_QUEUE, *(machine.worker.queue for machine in machines)}
    names |= set(Run.objects.filter(state=State.QUEUED, desired__in=WANTS_WORK).order_by().values_list("queue", flat=True).distinct())
    return [_pool(name, [machine for machine in machines if machine.worker.queue == name], team) for name in sorted(names)]


def machine_of(worker: Worker, team: Team, moment: datetime) -> Machine:
    """A worker as `team` may see it."""
    silent = max(0.0, (moment - worker.seen_at).total_seconds())
    run, vitals = worker.run, worker.vitals
    return Machine(
        worker=worker,
        state=_state(worker, silent),
        busy=run is not None,
        run=run if run and run.team_id == team.pk else None,
        progress=progress(run) if run else 0.0,
        eta_seconds=number_of((run.summary.get("latest") or {}).get("eta_seconds")) if run else None,
        silent_seconds=silent,
        memory_used_bytes=number_of(vitals.get("memory_used_bytes")),
        memory_bytes=number_of(vitals.get("memory_bytes") or worker.device.get("memory_bytes")),
    )


def _state(worker: Worker, silent_seconds: float) -> str:
    if silent_seconds > LATE_BEATS * ENV.heartbeat_seconds:
        return "lost"
    if worker.draining:
        return "draining"
    return "busy" if worker.run_id else "idle"


def _pool(name: str, machines: list[Machine], team: Team) -> Pool:
    waiting = turns(name)
    shown = waiting[:SHOWN]
    rows = {run.pk: run for run in Run.objects.filter(pk__in=[turn.run_id for turn in shown]).defer("spec").select_related("created_by")}
    starts = starting_times(machines, waiting)
    ends = _ends(waiting, rows)
    places = [
        Place(
            number=number,
            run_id=turn.run_id,
            run=row if row.team_id == team.pk else None,
            priority=Priority(row.priority),
            queued_at=row.queued_at,
            hold=turn.hold,
            starts_seconds=starts.get(turn.run_id),
            first=turn.run_id in ends["first"],
            last=turn.run_id in ends["last"],
        )
        for number, turn in enumerate(shown, 1)
        if (row := rows.get(turn.run_id))
    ]
    return Pool(name, machines, places, len(waiting))


def starting_times(machines: Iterable[Machine], waiting: Iterable[Turn]) -> dict[UUID, float]:
    """In how many seconds at most each run starts, as far as that is known: a worker that is idle takes one now, one that is busy takes one
    when its run is done. How long waiting runs will take is not known, so a worker counts once.
    """
    takers = [machine for machine in machines if machine.state in ("idle", "busy")]
    soon = [machine.eta_seconds if machine.busy else 0.0 for machine in takers]
    free = sorted(seconds for seconds in soon if seconds is not None)
    ready = (turn.run_id for turn in waiting if turn.hold is None)
    return dict(zip(ready, free, strict=False))


def _ends(waiting: list[Turn], rows: dict[UUID, Run]) -> dict[str, set[UUID]]:
    """The runs at the head and at the foot of their team's line of their priority."""
    lines: dict[Any, list[UUID]] = {}
    for turn in waiting:
        if row := rows.get(turn.run_id):
            lines.setdefault((turn.team_id, row.priority), []).append(turn.run_id)
    return {"first": {line[0] for line in lines.values()}, "last": {line[-1] for line in lines.values()}}
