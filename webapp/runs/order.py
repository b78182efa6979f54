"""Whose turn it is: the order in which waiting runs of a queue are claimed, and shown. docs/operations.md states the rule.

High priority goes before normal, normal before low. Within a priority the team that has the fewest runs under way is next, and of those
the one whose first run has waited longest. Within a team, people's own order counts, then the time of queueing. Runs of a team that is
at a limit of its quota are held: others go before them.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count

from webapp.quotas.services.limits import Hold, holds
from webapp.runs.models import Run
from webapp.runs.states import ACTIVE, WANTS_WORK, State


@dataclass(frozen=True)
class Waiting:
    """A run that waits."""

    run_id: UUID
    team_id: UUID
    priority: int
    place: int
    queued_at: datetime


@dataclass(frozen=True)
class Turn:
    """A waiting run in its turn; `hold` says why its team must wait, if it must."""

    run_id: UUID
    team_id: UUID
    hold: Hold | None = None


def turns(queue: str) -> list[Turn]:
    """All waiting runs of a queue, the next one first, those that are held at the end. Five queries at most."""
    columns = ("id", "team_id", "priority", "place", "queued_at")
    rows = Run.objects.filter(state=State.QUEUED, desired__in=WANTS_WORK, queue=queue).values_list(*columns)
    waiting = [Waiting(*row) for row in rows]
    if not waiting:
        return []
    counts = Run.objects.filter(state__in=ACTIVE, queue=queue).values_list("team").annotate(Count("pk")).order_by()
    held = holds({each.team_id for each in waiting})
    found = [Turn(each.run_id, each.team_id, held.get(each.team_id)) for each in fair(waiting, Counter(dict(counts)))]
    return sorted(found, key=lambda turn: turn.hold is not None)


def places(queue: str) -> dict[UUID, int]:
    """The place of each waiting run of a queue: 1 is next."""
    return {turn.run_id: number for number, turn in enumerate(turns(queue), 1)}


def fair(waiting: Iterable[Waiting], running: Counter[UUID]) -> list[Waiting]:
    """The order of runs by the rule above. Pure: `running` are the runs that each team has under way, and is left as it is."""
    counts = Counter(running)
    levels: dict[int, list[Waiting]] = defaultdict(list)
    for each in waiting:
        levels[each.priority].append(each)
    return [each for level in sorted(levels, reverse=True) for each in _one_level(levels[level], counts)]


def _one_level(waiting: list[Waiting], counts: Counter[UUID]) -> Iterable[Waiting]:
    """The runs of one priority. Each one that is taken counts as under way for those after it."""
    lines: dict[UUID, deque[Waiting]] = defaultdict(deque)
    for each in sorted(waiting, key=lambda each: (each.place, each.queued_at, each.run_id)):
        lines[each.team_id].append(each)
    heap = [(counts[team], line[0].queued_at, team) for team, line in lines.items()]
    heapq.heapify(heap)
    while heap:
        _count, _since, team = heapq.heappop(heap)
        yield lines[team].popleft()
        counts[team] += 1
        if lines[team]:
            heapq.heappush(heap, (counts[team], lines[team][0].queued_at, team))
