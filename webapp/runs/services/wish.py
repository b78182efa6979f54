"""What people ask of a run that a worker holds: written to `desired`, which the worker reads."""

from __future__ import annotations

from collections.abc import Collection

from django.db import transaction
from django.db.models.functions import Now

from jobs.errors import UserError
from webapp.runs import lease
from webapp.runs.models import Run
from webapp.runs.states import ACTIVE, Desired, State


def wish(run: Run, desired: Desired, *, actor: str, unless: Collection[Desired] = ()) -> bool:
    """Writes the wish, with a line of history, if a worker holds the run. Says whether it does.

    A wish that is there already, or is outranked by one in `unless` (nobody takes a cancel back), changes nothing.
    """
    with transaction.atomic():
        # The row is locked by this UPDATE, so that the state read below is the one that the wish met.
        if not Run.objects.filter(pk=run.pk, state__in=ACTIVE).update(changed_at=Now()):
            return False
        held = Run.objects.only("state", "desired", "attempt").get(pk=run.pk)
        if held.desired in (desired, *unless):
            return True
        Run.objects.filter(pk=run.pk).update(desired=desired)
        lease.record(run.pk, to=State(held.state), actor=actor, attempt=held.attempt, detail=f"asked: {desired}")
    return True


def refuse(run: Run, action: str) -> UserError:
    """The error for an action that does not fit the run's state."""
    run.refresh_from_db()
    return UserError("run_state", action=action, state=State(run.state).label.lower())
