"""The workers as the strip above the list shows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from webapp.accounts.models import Team
from webapp.core.formats import number_of
from webapp.runs.models import Run, Worker
from webapp.runs.states import WANTS_WORK, State

# A worker says that it lives every few seconds; one that has been silent for longer is shown as lost.
SILENT_SECONDS = 60
# More of them are counted, not named: their own page has them all.
NAMED = 4
_USED = ("device_used_bytes", "reserved_bytes", "resident_bytes")


@dataclass(frozen=True)
class OneWorker:
    """One worker of the site; `run` and what it uses only where the run belongs to the team that looks."""

    worker: Worker
    run: Run | None
    busy: bool
    lost: bool

    @property
    def memory_bytes(self) -> int:
        """The memory of its device, 0 where it has not said so."""
        return int(self.worker.device.get("memory_bytes") or 0)

    @property
    def used_bytes(self) -> int | None:
        """How much of it the team's run takes now."""
        memory = ((self.run.summary.get("latest") or {}).get("memory") or {}) if self.run else {}
        return next((int(memory[key]) for key in _USED if number_of(memory.get(key)) is not None), None)


@dataclass(frozen=True)
class Fleet:
    """All workers of the site, those that are named, and the length of the queue, of all teams together."""

    workers: list[OneWorker]
    waiting: int

    @property
    def named(self) -> list[OneWorker]:
        """The first few, those that train for the team before the others."""
        return sorted(self.workers, key=lambda one: (one.run is None, not one.lost, one.worker.name))[:NAMED]

    @property
    def unnamed(self) -> int:
        """How many are left."""
        return max(0, len(self.workers) - NAMED)

    @property
    def alive(self) -> list[OneWorker]:
        """Those that are in touch."""
        return [one for one in self.workers if not one.lost]

    @property
    def busy(self) -> int:
        """How many of those train."""
        return sum(one.busy for one in self.alive)

    @property
    def gpus(self) -> int:
        """How many of those have a GPU."""
        return sum(one.worker.device.get("kind") == "cuda" for one in self.alive)

    @property
    def memory_bytes(self) -> int:
        """The memory of their devices together."""
        return sum(one.memory_bytes for one in self.alive)


def fleet_of(team: Team, moment: datetime) -> Fleet:
    """The workers as a team sees them. Two queries."""
    workers = [
        OneWorker(
            worker=worker,
            run=worker.run if worker.run and worker.run.team_id == team.id else None,
            busy=worker.run_id is not None,
            lost=moment - worker.seen_at > timedelta(seconds=SILENT_SECONDS),
        )
        for worker in Worker.objects.select_related("run").defer("run__spec").order_by("name")
    ]
    return Fleet(workers, Run.objects.filter(state=State.QUEUED, desired__in=WANTS_WORK).count())
