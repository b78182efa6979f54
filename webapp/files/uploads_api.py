"""`/v1/uploads`: a file that comes in parts of up to 64 MB."""

from __future__ import annotations

from typing import IO, Any, cast

from django.http import HttpRequest
from ninja import File as Sent
from ninja import Router
from ninja.files import UploadedFile

from webapp.accounts.access import require
from webapp.accounts.scopes import Scope
from webapp.api.auth import Caller, needs
from webapp.api.ids import parse
from webapp.api.services.idempotency import once
from webapp.files.access import get_upload
from webapp.files.models import PartedUpload, Purpose
from webapp.files.refusals import said_of
from webapp.files.schemas import CompleteAsked, PartObject, UploadAsked, UploadObject, upload_object
from webapp.files.services import uploads

router = Router(tags=["Uploads"])


@router.post("/uploads", auth=needs(Scope.DATA_WRITE), response=UploadObject, operation_id="createUpload")
def create(request: HttpRequest, asked: UploadAsked) -> Any:
    """Announces a file of up to 8 GB; its parts are to come within an hour."""
    caller: Caller = request.auth  # type: ignore[attr-defined]
    require(caller.user, caller.team, "launch")
    return once(request, lambda: _announced(caller, asked))


def _announced(caller: Caller, asked: UploadAsked) -> UploadObject:
    with said_of("bytes"):
        upload = uploads.announce(
            team=caller.team,
            user=caller.user,
            filename=asked.filename,
            purpose=Purpose(asked.purpose),
            bytes_total=asked.bytes,
            mime_type=asked.mime_type,
            kept_seconds=asked.expires_after.seconds if asked.expires_after else None,
        )
    return upload_object(upload)


@router.post("/uploads/{upload_id}/parts", auth=needs(Scope.DATA_WRITE), response=PartObject, operation_id="addUploadPart")
def add_part(request: HttpRequest, upload_id: str, data: Sent[UploadedFile]) -> PartObject:
    """Sends one part; parts may come at once and in any order."""
    upload = _upload(request, upload_id)
    with said_of("data"):
        part = uploads.add_part(upload, int(data.size or 0), cast(IO[bytes], data))
    return PartObject(id=f"part_{part.pk.hex}", created_at=int(part.created_at.timestamp()), upload_id=f"upload_{upload.pk.hex}")


@router.post("/uploads/{upload_id}/complete", auth=needs(Scope.DATA_WRITE), response=UploadObject, operation_id="completeUpload")
def complete(request: HttpRequest, upload_id: str, asked: CompleteAsked) -> UploadObject:
    """Puts the parts together in this order; the answer's `file` is then as if it had been sent in one piece."""
    upload = _upload(request, upload_id)
    parts = [parse("part_", part) for part in asked.part_ids]
    with said_of("part_ids"):
        uploads.complete(upload, request.auth.user, parts, asked.md5)  # type: ignore[attr-defined]
    return upload_object(upload)


@router.post("/uploads/{upload_id}/cancel", auth=needs(Scope.DATA_WRITE), response=UploadObject, operation_id="cancelUpload")
def cancel(request: HttpRequest, upload_id: str) -> UploadObject:
    """Gives the upload up, and throws its parts away."""
    upload = _upload(request, upload_id)
    with said_of(""):
        uploads.close(upload, uploads.Status.CANCELLED)
    return upload_object(upload)


def _upload(request: HttpRequest, upload_id: str) -> PartedUpload:
    caller = request.auth  # type: ignore[attr-defined]
    return get_upload(caller.user, caller.team, parse("upload_", upload_id))
