"""Downloads: an artifact's zip, each file in it, and the checksums."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_safe

from webapp.accounts.access import signed_in
from webapp.accounts.audit_actions import Action
from webapp.accounts.bearer import takes_token
from webapp.accounts.models import User
from webapp.accounts.scopes import Scope
from webapp.accounts.services.audit import record
from webapp.artifacts.access import get_artifact
from webapp.core.http import Slice, file_response
from webapp.runs.models import Artifact


@takes_token(Scope.RUNS_READ)
@require_safe
def download(request: HttpRequest, artifact_id: UUID) -> HttpResponseBase:
    """The zip."""
    artifact = get_artifact(request.user, artifact_id)
    whole = Slice(artifact.file, 0, artifact.bytes, artifact.sha256, artifact.name, "application/zip")
    note(request, artifact, artifact.name)
    return file_response(request, whole)


@takes_token(Scope.RUNS_READ)
@require_safe
def file(request: HttpRequest, artifact_id: UUID, number: int) -> HttpResponseBase:
    """One file of the zip by its place in the list, from 0: its bytes stand uncompressed in the zip."""
    artifact = get_artifact(request.user, artifact_id)
    if number >= len(artifact.files):
        raise Http404
    member = artifact.files[number]
    name = str(member["name"]).rpartition("/")[2]
    note(request, artifact, f"{artifact.name}/{member['name']}")
    return file_response(request, Slice(artifact.file, int(member["offset"]), int(member["bytes"]), str(member["sha256"]), name))


@takes_token(Scope.RUNS_READ)
@require_safe
def checksums(request: HttpRequest, artifact_id: UUID) -> HttpResponse:
    """The SHA-256 of the zip and of each file in it, as `sha256sum --check` reads them."""
    artifact = get_artifact(request.user, artifact_id)
    lines = [(artifact.sha256, artifact.name), *((member["sha256"], member["name"]) for member in artifact.files)]
    return HttpResponse("".join(f"{digest}  {name}\n" for digest, name in lines), content_type="text/plain; charset=utf-8")


def note(request: HttpRequest, artifact: Artifact, name: str, user: User | None = None) -> None:
    """Writes a download into the audit log: once, when its first byte is asked for, however many ranges the client takes it in."""
    begins = request.headers.get("Range", "bytes=0-").replace(" ", "").startswith("bytes=0-")
    if request.method == "GET" and begins:
        detail = {"run": artifact.run.name}
        record(
            Action.ARTIFACT_DOWNLOADED, team=artifact.run.team, actor=user or signed_in(request), thing=artifact, name=name, detail=detail
        )
