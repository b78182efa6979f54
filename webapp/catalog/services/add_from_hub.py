"""Use case: add a model of the Hugging Face Hub by its name. The download runs elsewhere."""

from __future__ import annotations

import re

from django.db import transaction

from jobs.errors import UserError
from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.catalog.services.adding import begin
from webapp.quotas.services.limits import check_storage

State = BaseModel.State
# `owner/name` as the hub writes it, or one of its old names without an owner; and a branch, tag or commit.
_REPOSITORY = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,63}")


def add_from_hub(*, team: Team, user: User, repository: str, revision: str = "") -> BaseModel:
    """A model of the team that is being downloaded. Raises `UserError`: `hub_name` (with the field), `model_exists`, `quota_storage`."""
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise UserError("hub_name", what="name of a model", value=repr(repository)[:80], where={"field": "repository"})
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise UserError("hub_name", what="revision", value=repr(revision)[:80], where={"field": "revision"})
    with transaction.atomic():
        Team.objects.select_for_update().get(pk=team.pk)
        known = BaseModel.objects.filter(team=team, repository=repository, revision=revision)
        if known.exclude(state=State.FAILED).exists():
            raise UserError("model_exists", name=repository, where={"field": "repository"})
        check_storage(team)
        return begin(
            team=team, user=user, name=repository, source=BaseModel.Source.HUB, repository=repository, revision=revision
        )  # fmt: skip
