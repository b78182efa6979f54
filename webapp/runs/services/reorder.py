"""Put waiting runs in another order: priority between teams, places within one."""

from __future__ import annotations

from typing import Literal

from django.db import transaction
from django.db.models.functions import Now

from webapp.accounts.audit_actions import Action
from webapp.accounts.models import User
from webapp.accounts.services.audit import record
from webapp.runs.models import Run
from webapp.runs.priorities import Priority
from webapp.runs.services.wish import refuse
from webapp.runs.states import State

Direction = Literal["up", "down", "top"]


def set_priority(run: Run, priority: Priority, *, actor: User) -> None:
    """Gives a waiting run a priority, behind its team's others of that priority. Raises `UserError("run_state")` where it waits no more."""
    with transaction.atomic():
        if not Run.objects.filter(pk=run.pk, state=State.QUEUED).update(priority=priority, place=0, changed_at=Now()):
            raise refuse(run, "Changing the priority")
        detail = {"from": Priority(run.priority).name.lower(), "to": priority.name.lower()}
        record(Action.RUN_PRIORITY, team=run.team, actor=actor, thing=run, name=run.name, detail=detail)


def shift(run: Run, direction: Direction, *, actor: User) -> None:
    """Moves a waiting run among its team's waiting runs of the same priority; at the end of the line nothing changes.

    Raises `UserError("run_state")` where it waits no more.
    """
    with transaction.atomic():
        mine = Run.objects.filter(team=run.team_id, queue=run.queue, state=State.QUEUED, priority=run.priority)
        # Locked, so that of two who move at once the second sees what the first has done.
        line = list(mine.select_for_update().order_by("place", "queued_at", "id").values_list("id", "place"))
        ids = [run_id for run_id, _ in line]
        if run.pk not in ids:
            raise refuse(run, "Moving")
        at = ids.index(run.pk)
        ids.insert({"up": max(0, at - 1), "down": at + 1, "top": 0}[direction], ids.pop(at))
        # Below zero, so that whoever comes to the queue later (place 0) stands at its end.
        for place, run_id in enumerate(ids, -len(ids)):
            if (run_id, place) not in line:
                Run.objects.filter(pk=run_id).update(place=place, changed_at=Now())
        record(Action.RUN_MOVED, team=run.team, actor=actor, thing=run, name=run.name, detail={"direction": direction})
