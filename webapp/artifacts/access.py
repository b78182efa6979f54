"""The only door to artifacts: whoever may see the run may download what it left behind."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404

from webapp.accounts.access import Person
from webapp.runs.access import get_run
from webapp.runs.models import Artifact


def get_artifact(user: Person, artifact_id: UUID, action: str = "view") -> Artifact:
    """The artifact with its run, if the person may do `action` with that. Raises `Http404` for a stranger, `PermissionDenied` for a
    lesser role.
    """
    artifact = Artifact.objects.filter(pk=artifact_id).first()
    if artifact is None:
        raise Http404
    artifact.run = get_run(user, artifact.run_id, action)
    return artifact
