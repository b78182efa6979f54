"""What teams use of the site: a constant number of queries, however many teams, runs and files there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import BigIntegerField, Count, F, Sum
from django.db.models.fields.json import KT
from django.db.models.functions import Cast

from webapp.accounts.models import Team
from webapp.quotas.models import ComputeUse
from webapp.quotas.services.ledger import hours_of

# What is stored, by kind of file: a model by name, since the apps of these rows stand above this one, the path from it to the team, and its
# columns of bytes. An upload counts as it was announced, so that two at once cannot both have the last free byte.
_SPLITS = ("train", "validation", "test")
_STORED: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "uploads": ("datasets.Upload", "team", (F("bytes_total"),)),
    "datasets": (
        "datasets.DatasetVersion",
        "dataset__team",
        tuple(Cast(KT(f"manifest__{split}__bytes"), BigIntegerField()) for split in _SPLITS),
    ),
    "checkpoints": ("runs.Run", "team", (F("checkpoint_bytes"),)),
    "artifacts": ("runs.Artifact", "run__team", (F("bytes"),)),
    "models": ("catalog.BaseModel", "team", (Cast(KT("facts__bytes"), BigIntegerField()),)),
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
    waiting = apps.get_model("runs.Run")._default_manager.filter(team__in=ids, state="queued").order_by()
    queued = _counted(waiting.values_list("team").annotate(Count("pk")))
    hours = hours_of(ids)
    return {team: Use(stored[team], running.get(team, 0), queued.get(team, 0), hours[team]) for team in ids}


def stored_of(team_ids: Collection[UUID]) -> dict[UUID, dict[str, int]]:
    """Bytes by kind of file for each team. One query a kind."""
    stored: dict[UUID, dict[str, int]] = {team: dict.fromkeys(_STORED, 0) for team in team_ids}
    for kind, (model, path, columns) in _STORED.items():
        rows = apps.get_model(model)._default_manager.filter(**{f"{path}__in": team_ids}).order_by()
        sums = {f"sum_{number}": Sum(column) for number, column in enumerate(columns)}
        for team, *counts in rows.values_list(path).annotate(**sums):
            stored[team][kind] = sum(int(count or 0) for count in counts)
    return stored


def _counted(rows: Iterable[Any]) -> dict[UUID, int]:
    return {team: int(count) for team, count in rows}
