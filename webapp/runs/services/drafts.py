"""Use cases of drafts of runs: begun, kept as they are filled in, thrown away, forgotten after a month."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils.timezone import now

from webapp.accounts.models import Team, User
from webapp.runs.models import Run, RunDraft
from webapp.runs.services.create import create_run
from webapp.runs.services.specs import Recipe

KEPT_DAYS = 30
# A person has so many open drafts in a team; the one that was left alone for longest makes room for another.
KEPT_DRAFTS = 50


def drafts_of(team: Team, user: User) -> QuerySet[RunDraft]:
    """The open drafts of one person in a team, the one that was touched last first."""
    return RunDraft.objects.filter(team=team, user=user).order_by("-changed_at")


def own_draft(team: Team, user: User, name: str) -> RunDraft | None:
    """A person's open draft by its id as text; None where there is no such one."""
    try:
        return drafts_of(team, user).select_related("team").filter(pk=UUID(name)).first()
    except ValueError:
        return None


def begin(team: Team, user: User, values: Mapping[str, Any], *, step: str, origin: Mapping[str, Any]) -> RunDraft:
    """A new draft; or, where the last one has the very same values and was begun from the same, that one, so that reloading adds none."""
    mine = drafts_of(team, user)
    last = mine.first()
    if last is not None and last.values == values and last.origin == origin:
        return last
    too_many = list(mine.values_list("pk", flat=True)[KEPT_DRAFTS - 1 :])
    RunDraft.objects.filter(pk__in=too_many).delete()
    return RunDraft.objects.create(team=team, user=user, values=dict(values), origin=dict(origin), step=step)


def save(draft: RunDraft, values: Mapping[str, Any], *, step: str | None = None) -> None:
    """Keeps what was typed, and where the person stands. One that was launched meanwhile is not brought back."""
    draft.values, draft.step = dict(values), step or draft.step
    RunDraft.objects.filter(pk=draft.pk).update(values=draft.values, step=draft.step, changed_at=now())


def discard(draft: RunDraft) -> bool:
    """Throws a draft away; False where somebody was faster."""
    return bool(RunDraft.objects.filter(pk=draft.pk).delete()[0])


def launch(draft: RunDraft, recipe: Recipe, user: User) -> UUID:
    """Makes the draft the run that `recipe` describes; gives its id, which is the draft's. A draft that was launched already stays that
    run, however often the button is pressed. Raises `UserError` as `create_run` does; the draft is kept then.
    """
    with transaction.atomic():
        if discard(draft):
            create_run(recipe, team=draft.team, user=user, run_id=draft.pk)
    return draft.pk


def launched(team: Team, draft_id: UUID) -> bool:
    """Whether the draft of this id has become a run of the team."""
    return Run.objects.filter(team=team, pk=draft_id).exists()


def expire() -> int:
    """Forgets drafts that nobody touched for a month. Gives how many."""
    return RunDraft.objects.filter(changed_at__lt=now() - timedelta(days=KEPT_DAYS)).delete()[0]
