"""What all ways of adding a model have in common: a name that is free, a row in the making, its doorbell, its folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.db import transaction

from jobs.errors import UserError
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team, User
from webapp.accounts.services.audit import record
from webapp.catalog.models import BaseModel
from webapp.quotas.services.limits import check_storage
from webapp.work.outbox import SHORT_QUEUE, ring

TASK = "catalog.fetch"
NAME_LENGTH = 200


def announce(*, team: Team, user: User, name: str, more_bytes: int = 0, **fields: Any) -> BaseModel:
    """A model of the team that is being added, with its doorbell. To be called in a transaction.

    Raises `UserError`: `model_name_taken` (with the field), `quota_storage`.
    """
    Team.objects.select_for_update().get(pk=team.pk)
    check_storage(team, more_bytes)
    if BaseModel.objects.filter(team=team, name=name).exclude(state=BaseModel.State.FAILED).exists():
        raise UserError("model_name_taken", name=name, where={"field": "name"})
    return begin(team=team, user=user, name=name, **fields)


def begin(*, team: Team, user: User, name: str, **fields: Any) -> BaseModel:
    """The row, its line in the audit log and its doorbell, for a name that was looked at before."""
    model = BaseModel.objects.create(team=team, created_by=user, name=name, **fields)
    record(Action.MODEL_ADDED, team=team, actor=user, thing=model, detail={"source": str(model.source)})
    ring(TASK, model.pk, SHORT_QUEUE)
    return model


def try_again(model: BaseModel) -> bool:
    """Failed -> being added, and the doorbell rung; False where it has not failed."""
    with transaction.atomic():
        failed = BaseModel.objects.filter(pk=model.pk, state=BaseModel.State.FAILED)
        if failed.update(state=BaseModel.State.FETCHING, message="", progress={}) != 1:
            return False
        ring(TASK, model.pk, SHORT_QUEUE)
    return True


def work_folder(model: BaseModel) -> Path:
    """Where a model's files come together: the one place that its child may write, kept for the next try where that fails."""
    return model.folder.with_suffix(".part")


def incoming_folder(model: BaseModel) -> Path:
    """Where the files of an upload wait to be looked at."""
    return model.folder.with_suffix(".in")
