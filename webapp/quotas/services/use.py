"""What teams use of the site: a constant number of queries, however many teams, runs and files there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import BigIntegerField, Count, F, Q, Sum
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce

from webapp.accounts.models import Team
from webapp.quotas.models import ComputeUse
from webapp.quotas.services.ledger import hours_of

# The rows stand in apps above this one, and are named by their path from the team. An upload counts as it was announced, so that two at
# once cannot both have the last free byte.
_SPLITS = ("train", "validation", "test")
_STORED: dict[str, tuple[Any, ...]] = {
    "uploads": (F("uploads__bytes_total"),),
    "datasets": tuple(Cast(KT(f"datasets__versions__manifest__{split}__bytes"), BigIntegerField()) for split in _SPLITS),
    "checkpoints": (F("runs__checkpoint_bytes"),),
    "artifacts": (F("runs__artifacts__bytes"),),
    "models": (Cast(KT("base_models__facts__bytes"), BigIntegerField()),),
}


@dataclass(frozen=True)
class Use:
    """What a team uses now: bytes by kind of file, runs that hold a worker, runs that wait, device hours of this month."""

    stored: dict[str, int]
    running_runs: int
    queued_runs: int
    compute_hours: float

    @property
    def storage_bytes(self) -> int:
        """All that is stored."""
        return sum(self.stored.values())


def use_of(teams: Collection[Team]) -> dict[UUID, Use]:
    """The use of each team. Eight queries."""
    ids = [team.pk for team in teams]
    stored = stored_of(ids)
    running = _counted(ComputeUse.objects.filter(team__in=ids, ended_at=None).values_list("team").annotate(Count("pk")))
    waiting = Count("runs", filter=Q(runs__state="queued"))
    queued = _counted(Team.objects.filter(pk__in=ids).annotate(waiting=waiting).values_list("pk", "waiting"))
    hours = hours_of(ids)
    return {team: Use(stored[team], running.get(team, 0), queued.get(team, 0), hours[team]) for team in ids}


def stored_of(team_ids: Collection[UUID]) -> dict[UUID, dict[str, int]]:
    """Bytes by kind of file for each team. One query a kind: joined in one, rows of one kind would count once for each of another."""
    stored: dict[UUID, dict[str, int]] = {team: {} for team in team_ids}
    for kind, columns in _STORED.items():
        total = sum((Coalesce(Sum(column), 0) for column in columns[1:]), start=Coalesce(Sum(columns[0]), 0))
        rows = Team.objects.filter(pk__in=team_ids).annotate(total=total).values_list("pk", "total")
        for team, count in rows:
            stored[team][kind] = int(count)
    return stored


def _counted(rows: Iterable[Any]) -> dict[UUID, int]:
    return {team: int(count) for team, count in rows}
