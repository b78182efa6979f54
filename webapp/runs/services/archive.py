"""Take runs out of the lists, and bring them back. Nothing of them is lost, and their pages stay where they are."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team
from webapp.accounts.services.audit import record_each
from webapp.runs.models import Run
from webapp.runs.states import TERMINAL, State

# What runs or waits would be out of sight while it takes a worker.
ARCHIVABLE = TERMINAL | {State.PAUSED}


def archive(runs: QuerySet[Run], *, team: Team, actor: str) -> list[UUID]:
    """Archives those of the team's `runs` that have ended or are paused; gives those that it was done to."""
    return _set(runs.filter(archived_at=None, state__in=ARCHIVABLE), Action.RUN_ARCHIVED, team, actor)


def unarchive(runs: QuerySet[Run], *, team: Team, actor: str) -> list[UUID]:
    """Brings archived ones back; gives those that it was done to."""
    return _set(runs.filter(archived_at__isnull=False), Action.RUN_UNARCHIVED, team, actor)


def _set(runs: QuerySet[Run], action: Action, team: Team, actor: str) -> list[UUID]:
    with transaction.atomic():
        found = sorted(runs.select_for_update(of=("self",)).only("pk", "name"), key=lambda run: run.pk)
        ids = [run.pk for run in found]
        changed = {"archived_at": Now() if action == Action.RUN_ARCHIVED else None, "changed_at": Now()}
        Run.objects.filter(pk__in=ids).update(**changed)
        record_each(action, team=team, actor=actor, things=[(run, run.name) for run in found])
    return ids
