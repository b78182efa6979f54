"""Use cases: add a model of the Hugging Face Hub by its name; try again where that failed. The download runs elsewhere."""

from __future__ import annotations

import re

from django.db import transaction

from jobs.errors import UserError
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team, User
from webapp.accounts.services.audit import record
from webapp.catalog.models import BaseModel
from webapp.work.outbox import SHORT_QUEUE, ring

TASK = "catalog.fetch"
State = BaseModel.State
# `owner/name` as the hub writes it, or one of its old names without an owner; and a branch, tag or commit.
_REPOSITORY = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,63}")


def add_from_hub(*, team: Team, user: User, repository: str, revision: str = "") -> BaseModel:
    """A model of the team that is being downloaded. Raises `UserError`: `hub_name` (with the field), `model_exists`."""
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise UserError("hub_name", what="name of a model", value=repr(repository)[:80], where={"field": "repository"})
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise UserError("hub_name", what="revision", value=repr(revision)[:80], where={"field": "revision"})
    with transaction.atomic():
        Team.objects.select_for_update().get(pk=team.pk)
        known = BaseModel.objects.filter(team=team, repository=repository, revision=revision)
        if known.exclude(state=State.FAILED).exists():
            raise UserError("model_exists", name=repository, where={"field": "repository"})
        model = BaseModel.objects.create(
            team=team, name=repository, source=BaseModel.Source.HUB, repository=repository, revision=revision, created_by=user
        )
        detail = {"source": model.source, "revision": revision}
        record(Action.MODEL_ADDED, team=team, actor=user, thing=model, name=repository, detail=detail)
        ring(TASK, model.pk, SHORT_QUEUE)
    return model


def fetch_again(model: BaseModel) -> bool:
    """Failed -> fetching, and the doorbell rung; False where it has not failed."""
    with transaction.atomic():
        failed = BaseModel.objects.filter(pk=model.pk, state=State.FAILED, source=BaseModel.Source.HUB)
        if failed.update(state=State.FETCHING, message="") != 1:
            return False
        ring(TASK, model.pk, SHORT_QUEUE)
    return True
