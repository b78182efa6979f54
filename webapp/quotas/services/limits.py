"""Keeping to the limits: what is refused says what is used, what is allowed, and what to free or whom to ask.

A check and the write that follows it stand in one transaction, behind the lock of the team's quota: of two at once, the second sees the
first. (SQLite writes one after another anyway.)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from django.db.models import Count

from jobs.errors import UserError
from webapp.accounts.models import Team
from webapp.core.formats import format_bytes, format_number
from webapp.quotas.models import ComputeUse, Quota
from webapp.quotas.services.ledger import hours_of
from webapp.quotas.services.use import stored_of


@dataclass(frozen=True)
class Hold:
    """Why no run of a team may start now: so much is `used` of the `limit`."""

    kind: Literal["running", "hours"]
    used: float
    limit: float


def check_storage(team: Team, more_bytes: int = 0, *, lock: bool = False) -> None:
    """Refuses, by `UserError("quota_storage")`, where a team would keep more than it may with `more_bytes` more.

    With `lock`, within a transaction, the quota stays locked until its end.
    """
    rows = Quota.objects.select_for_update() if lock else Quota.objects.all()
    limit = rows.filter(team=team).values_list("storage_bytes", flat=True).first()
    if limit is None:
        return
    stored = stored_of([team.pk])[team.pk]
    used = sum(stored.values())
    if used + more_bytes <= limit:
        return
    largest = max(stored, key=lambda kind: stored[kind])
    raise UserError(
        "quota_storage",
        used=format_bytes(used),
        limit=format_bytes(limit),
        wanted=format_bytes(more_bytes),
        largest=largest,
        largest_bytes=format_bytes(stored[largest]),
    )


def check_launch(team: Team, queued: int) -> None:
    """Refuses one run more where a team has `queued` waiting ones: `UserError`, `quota_queued`, `quota_hours` or `quota_storage`.

    To be called in the transaction that queues the run: it locks the team's quota.
    """
    quota = Quota.objects.select_for_update().filter(team=team).first()
    if quota is None:
        return
    if quota.queued_runs is not None and queued >= quota.queued_runs:
        raise UserError("quota_queued", used=queued, limit=quota.queued_runs)
    if quota.compute_hours is not None and (used := hours_of([team.pk])[team.pk]) >= quota.compute_hours:
        raise UserError("quota_hours", used=format_number(round(used, 2)), limit=format_number(quota.compute_hours))
    check_storage(team)


def holds(team_ids: Collection[UUID], *, lock: bool = False) -> dict[UUID, Hold]:
    """The teams of these whose runs must wait. Three queries at most; with `lock`, their quotas stay locked until the transaction's end."""
    rows = Quota.objects.select_for_update() if lock else Quota.objects.all()
    quotas = [quota for quota in rows.filter(team__in=team_ids) if (quota.running_runs, quota.compute_hours) != (None, None)]
    if not quotas:
        return {}
    ids = [quota.team_id for quota in quotas]
    counts = ComputeUse.objects.filter(team__in=ids, ended_at=None).values_list("team").annotate(Count("pk"))
    running: dict[UUID, int] = dict(counts)
    hours = hours_of([quota.team_id for quota in quotas if quota.compute_hours is not None])
    found: dict[UUID, Hold] = {}
    for quota in quotas:
        if quota.compute_hours is not None and hours[quota.team_id] >= quota.compute_hours:
            found[quota.team_id] = Hold("hours", hours[quota.team_id], quota.compute_hours)
        elif quota.running_runs is not None and running.get(quota.team_id, 0) >= quota.running_runs:
            found[quota.team_id] = Hold("running", running.get(quota.team_id, 0), quota.running_runs)
    return found
