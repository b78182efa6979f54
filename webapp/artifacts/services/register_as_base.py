"""Use case: a merged or fully trained model of a run becomes a base model of its team. Where it comes from is kept."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from jobs.errors import UserError
from webapp.accounts.models import User
from webapp.catalog.models import BaseModel
from webapp.catalog.services.add_from_run import add_from_run
from webapp.runs.models import Artifact

KINDS = (Artifact.Kind.MERGED, Artifact.Kind.MODEL)


def register_as_base(*, artifact: Artifact, user: User, name: str) -> BaseModel:
    """The model that is being copied out of the artifact's zip.

    Raises `UserError`: `artifact_unfit`, `model_name_taken` (with the field), `quota_storage`.
    """
    run = artifact.run
    if artifact.kind not in KINDS:
        raise UserError("artifact_unfit", name=artifact.name, reason="it is no whole model")
    if not artifact.file.is_file():
        raise UserError("artifact_unfit", name=artifact.name, reason="its file is no longer there")
    return add_from_run(
        team=run.team,
        user=user,
        name=name,
        licence=run.base_model.licence,
        origin={
            "run": str(run.pk),
            "run_name": run.name,
            "artifact": str(artifact.pk),
            "artifact_name": artifact.name,
            "base": str(run.base_model_id),
            "base_name": run.base_model.name,
            "sha256": artifact.sha256,
            "zip": str(artifact.file.relative_to(Path(settings.GRAFT_VAR))),
            "members": artifact.files,
        },
    )
