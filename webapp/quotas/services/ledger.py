"""The ledger of the devices' time: one line for each attempt of a run, opened and closed in the transactions of the lease."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from webapp.quotas.models import ComputeUse

SECONDS_PER_HOUR = 3600.0


def open_use(*, team_id: UUID, run_id: UUID, attempt: int, device: dict[str, Any]) -> None:
    """An attempt has begun on a worker whose device is `device` (`python -m jobs device`; {} where it did not say)."""
    kind = str(device.get("kind", ""))
    devices = int(device.get("count") or 1) if kind == "cuda" else 1
    ComputeUse.objects.create(team_id=team_id, run_id=run_id, attempt=attempt, device=kind, devices=devices, started_at=Now())


def close_use(run_id: UUID, attempt: int) -> None:
    """The attempt holds its worker no longer. One that is closed already, or never began, stays as it is."""
    ComputeUse.objects.filter(run_id=run_id, attempt=attempt, ended_at=None).update(ended_at=Now())


def month_of(moment: datetime) -> datetime:
    """The beginning of the calendar month (UTC) of a moment."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def hours_of(team_ids: Collection[UUID], moment: datetime | None = None) -> dict[UUID, float]:
    """The device hours of each team from the beginning of the month to `moment` (now), runs under way included. One query."""
    until = moment or timezone.now()
    since = month_of(until)
    rows = ComputeUse.objects.filter(Q(ended_at=None) | Q(ended_at__gt=since), team__in=team_ids, started_at__lt=until)
    hours: dict[UUID, float] = dict.fromkeys(team_ids, 0.0)
    for team_id, devices, started_at, ended_at in rows.values_list("team", "devices", "started_at", "ended_at"):
        seconds = (min(ended_at or until, until) - max(started_at, since)).total_seconds()
        hours[team_id] += max(0.0, seconds) * devices / SECONDS_PER_HOUR
    return hours
