"""Use case: delete an artifact: its row first, its file after commit. What was made of it before stays."""

from __future__ import annotations

from functools import partial

from django.db import transaction

from jobs.errors import UserError
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import User
from webapp.accounts.services.audit import record
from webapp.artifacts.services.lineage import parts_of
from webapp.runs.models import Artifact, Run
from webapp.runs.states import TERMINAL


def delete_artifact(artifact: Artifact, user: User) -> None:
    """Raises `UserError("artifact_used")` while a run that has not ended builds on it."""
    with transaction.atomic():
        if artifact.kind == Artifact.Kind.ADAPTER:
            for run in Run.objects.filter(team=artifact.run.team_id).exclude(state__in=TERMINAL):
                if artifact.run_id in parts_of(run):
                    raise UserError("artifact_used", name=artifact.name, run=run.name)
        record(Action.ARTIFACT_DELETED, team=artifact.run.team, actor=user, thing=artifact, detail={"run": artifact.run.name})
        file = artifact.file
        Artifact.objects.filter(pk=artifact.pk).delete()
        transaction.on_commit(partial(file.unlink, missing_ok=True))
