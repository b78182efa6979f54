"""Take runs out of the lists, and bring them back. Nothing of them is lost, and their pages stay where they are."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from webapp.runs.models import Run
from webapp.runs.states import TERMINAL, State

# What runs or waits would be out of sight while it takes a worker.
ARCHIVABLE = TERMINAL | {State.PAUSED}


def archive(runs: QuerySet[Run]) -> list[UUID]:
    """Archives those that have ended or are paused; gives those that it was done to."""
    return _set(runs.filter(archived_at=None, state__in=ARCHIVABLE), archived=True)


def unarchive(runs: QuerySet[Run]) -> list[UUID]:
    """Brings archived ones back; gives those that it was done to."""
    return _set(runs.filter(archived_at__isnull=False), archived=False)


def _set(runs: QuerySet[Run], *, archived: bool) -> list[UUID]:
    with transaction.atomic():
        ids = sorted(runs.select_for_update(of=("self",)).values_list("pk", flat=True))
        Run.objects.filter(pk__in=ids).update(archived_at=Now() if archived else None, changed_at=Now())
    return ids
