"""Use cases: what a team does with a model that it has: name its licence, archive it, take it out of the archive, delete it."""

from __future__ import annotations

import shutil
from functools import partial

from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone

from jobs.errors import UserError
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import User
from webapp.accounts.services.audit import record
from webapp.catalog.models import BaseModel
from webapp.catalog.services.adding import incoming_folder, work_folder


def set_licence(model: BaseModel, licence: str) -> None:
    """The licence that the team has read; it is written into the cards of what is made of the model from now on."""
    BaseModel.objects.filter(pk=model.pk).update(licence=licence.strip())


def archive(model: BaseModel) -> bool:
    """Lists and forms leave it out from now on; runs of it stay as they are. False where it was archived before."""
    return BaseModel.objects.filter(pk=model.pk, archived_at=None).update(archived_at=timezone.now()) == 1


def unarchive(model: BaseModel) -> bool:
    """Back into the lists; False where it was not archived."""
    return BaseModel.objects.filter(pk=model.pk).exclude(archived_at=None).update(archived_at=None) == 1


def delete(model: BaseModel, user: User) -> None:
    """Deletes the model and its files, also one that is being added. Raises `UserError("model_used")` while a run stands on it."""
    try:
        with transaction.atomic():
            record(Action.MODEL_DELETED, team=model.team, actor=user, thing=model)
            folders = (model.folder, work_folder(model), incoming_folder(model))
            model.delete()
            for folder in folders:
                transaction.on_commit(partial(shutil.rmtree, folder, ignore_errors=True))
    except ProtectedError as refused:
        raise UserError("model_used", name=model.name, count=len(refused.protected_objects)) from None
