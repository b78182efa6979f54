"""The only door to files and uploads of the API: those of the team that the caller acts for."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404

from webapp.accounts.access import Person, require, visible_to
from webapp.accounts.models import Team
from webapp.files.models import File, PartedUpload


def files_of(user: Person, team: Team) -> QuerySet[File]:
    """The team's files that are not deleted, each with its dataset version."""
    rows = File.objects.filter(team=team, deleted_at=None).select_related("dataset_version", "upload")
    # A version's findings may be long; what is wrong is in the first of them.
    return visible_to(user, rows).defer("dataset_version__examination", "dataset_version__manifest")


def get_file(user: Person, team: Team, file_id: UUID, action: str = "view") -> File:
    """The file, if the person may do `action` with it. Raises `Http404` for a stranger, `PermissionDenied` for a lesser role."""
    file = files_of(user, team).filter(pk=file_id).first()
    if file is None:
        raise Http404(f"No such File object: file-{file_id.hex}")
    require(user, team, action)
    return file


def get_upload(user: Person, team: Team, upload_id: UUID) -> PartedUpload:
    """The upload, by the same rule, for somebody who may send data."""
    upload = visible_to(user, PartedUpload.objects.select_related("file", "team")).filter(pk=upload_id, team=team).first()
    if upload is None:
        raise Http404(f"No such Upload object: upload_{upload_id.hex}")
    require(user, team, "launch")
    return upload
