"""Let a worker end the run that it has and take no other, and let it take runs again."""

from __future__ import annotations

from django.db import transaction

from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team, User
from webapp.accounts.services.audit import record
from webapp.runs.models import Worker


@transaction.atomic
def drain(worker: Worker, *, draining: bool, actor: User, team: Team) -> None:
    """Sets it; the claim asks for it, so that it holds from the next claim on, and after a restart of the worker too.

    A worker belongs to no team: what was done stands in the log of `team`, on whose page it was.
    """
    if Worker.objects.filter(pk=worker.pk).exclude(draining=draining).update(draining=draining):
        record(Action.WORKER_DRAINED if draining else Action.WORKER_RESUMED, team=team, actor=actor, thing=worker, name=worker.name)
    worker.draining = draining
