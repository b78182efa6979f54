"""Resumable uploads: tus 1.0 (https://tus.io/protocols/resumable-upload) with creation, termination and checksum.

A part's body is bounded by the ASGI body limit before it comes here, and is taken from the request in pieces.
"""

from __future__ import annotations

import base64
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_http_methods

from jobs.errors import UserError
from webapp.accounts.access import get_team, require, signed_in
from webapp.datasets.models import Upload
from webapp.datasets.services.create_upload import create_upload
from webapp.datasets.services.discard_upload import discard_upload
from webapp.datasets.services.receive_part import ALGORITHMS, Checksum, PartRefused, receive_part
from webapp.settings.env import ENV

VERSION = "1.0.0"
PART_TYPE = "application/offset+octet-stream"


@require_http_methods(["OPTIONS", "POST"])
def creation(request: HttpRequest, slug: str) -> HttpResponse:
    """POST announces a file and answers with its address; OPTIONS says what this server speaks."""
    team = get_team(request.user, slug, "launch")
    if request.method == "OPTIONS":
        return _answer(204, {
            "Tus-Version": VERSION, "Tus-Extension": "creation,termination,checksum",
            "Tus-Max-Size": str(ENV.upload_limit_bytes), "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        })  # fmt: skip
    if refusal := _other_version(request):
        return refusal
    try:
        length = int(request.headers.get("Upload-Length", ""))
        filename = _metadata(request.headers.get("Upload-Metadata", "")).get("filename", "")
        upload = create_upload(team=team, user=signed_in(request), filename=filename, bytes_total=length)
    except ValueError:
        return _refuse(400, "Upload-Length must be a number of bytes, and Upload-Metadata pairs of a key and base64.")
    except UserError as error:
        return _refuse(413 if error.code in ("upload_too_large", "quota_storage") else 400, f"{error.message} {error.remedy}")
    return _answer(201, {"Location": reverse("datasets:upload", args=[upload.pk]), "Upload-Offset": "0"})


@require_http_methods(["HEAD", "PATCH", "DELETE"])
def upload(request: HttpRequest, upload_id: UUID) -> HttpResponse:
    """HEAD says how far the upload is, PATCH appends a part, DELETE gives it up."""
    row = Upload.objects.select_related("team").filter(pk=upload_id).first()
    if row is None:
        raise Http404
    require(request.user, row.team, "launch")
    if refusal := _other_version(request):
        return refusal
    if request.method == "DELETE":
        return _answer(204) if discard_upload(row) else _refuse(409, "A dataset stands on this upload.")
    if request.method == "PATCH":
        return _append(request, row)
    return _answer(200, {"Upload-Offset": str(row.bytes_received), "Upload-Length": str(row.bytes_total)})


def _append(request: HttpRequest, row: Upload) -> HttpResponse:
    if request.content_type != PART_TYPE:
        return _refuse(415, f"The content type of a part is {PART_TYPE}.")
    try:
        offset = int(request.headers.get("Upload-Offset", ""))
        checksum = _checksum(request.headers.get("Upload-Checksum"))
        row = receive_part(upload_id=row.pk, offset=offset, read=request.read, checksum=checksum)
    except ValueError:
        return _refuse(400, "Upload-Offset must be a number of bytes, Upload-Checksum a known algorithm and base64.")
    except PartRefused as refusal:
        return _refuse(refusal.status, str(refusal))
    return _answer(204, {"Upload-Offset": str(row.bytes_received)})


def _metadata(header: str) -> dict[str, str]:
    """`key base64,key base64`. Raises `ValueError`."""
    pairs = (pair.strip().partition(" ") for pair in header.split(",") if pair.strip())
    return {key: base64.b64decode(value, validate=True).decode("utf-8") for key, _, value in pairs}


def _checksum(header: str | None) -> Checksum | None:
    """`algorithm base64`. Raises `ValueError`."""
    if header is None:
        return None
    algorithm, _, digest = header.partition(" ")
    if algorithm not in ALGORITHMS:
        raise ValueError(algorithm)
    return Checksum(algorithm, base64.b64decode(digest, validate=True))


def _other_version(request: HttpRequest) -> HttpResponse | None:
    if request.headers.get("Tus-Resumable") == VERSION:
        return None
    response = _refuse(412, f"This server speaks tus {VERSION}.")
    response["Tus-Version"] = VERSION
    return response


def _answer(status: int, headers: dict[str, str] | None = None) -> HttpResponse:
    response = HttpResponse(status=status, headers={"Tus-Resumable": VERSION, **(headers or {})})
    add_never_cache_headers(response)
    return response


def _refuse(status: int, message: str) -> HttpResponse:
    return HttpResponse(message, status=status, content_type="text/plain; charset=utf-8", headers={"Tus-Resumable": VERSION})
