"""Use case: add a model of the Hugging Face Hub by its name. The download runs elsewhere."""

from __future__ import annotations

import re

from django.db import transaction

from jobs.errors import UserError
from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.catalog.services.adding import begin
from webapp.quotas.services.limits import check_storage
from webapp.settings.env import ENV

State = BaseModel.State
# `owner/name` as the hub writes it, or one of its old names without an owner; and a branch, tag or commit.
_REPOSITORY = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,63}")


def add_from_hub(*, team: Team, user: User, repository: str, revision: str = "") -> BaseModel:
    """A model of the team that is being downloaded.

    Raises `UserError`: `hub_name`, `hub_owner` and `model_exists` (with the field), `quota_storage`.
    """
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise UserError("hub_name", what="name of a model", value=repr(repository)[:80], where={"field": "repository"})
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise UserError("hub_name", what="revision", value=repr(revision)[:80], where={"field": "revision"})
    require_owner(repository)
    with transaction.atomic():
        Team.objects.select_for_update().get(pk=team.pk)
        known = BaseModel.objects.filter(team=team, repository=repository, revision=revision)
        if known.exclude(state=State.FAILED).exists():
            raise UserError("model_exists", name=repository, where={"field": "repository"})
        check_storage(team)
        return begin(
            team=team, user=user, name=repository, source=BaseModel.Source.HUB, repository=repository, revision=revision
        )  # fmt: skip


def require_owner(repository: str) -> None:
    """Raises `UserError("hub_owner")` where the administrator names the owners whose models may be added, and this is none of theirs."""
    allowed = ENV.split(ENV.hub_owners)
    owner = repository.rpartition("/")[0]
    if allowed and owner.casefold() not in {name.casefold() for name in allowed}:
        raise UserError("hub_owner", name=repository, known=", ".join(allowed), where={"field": "repository"})
