"""`/v1/files`: send, list, read, download and delete files."""

from __future__ import annotations

from typing import IO, Any, Literal, cast

from django.http import Http404, HttpRequest, HttpResponseBase
from ninja import File as Sent
from ninja import Form, Query, Router, Schema
from ninja.files import UploadedFile
from pydantic import Field

from webapp.accounts.access import require
from webapp.accounts.scopes import Scope
from webapp.api.auth import needs
from webapp.api.errors import ApiError
from webapp.api.ids import parse
from webapp.api.paging import page
from webapp.core.http import Slice, file_response
from webapp.files.access import files_of, get_file
from webapp.files.models import File, Purpose
from webapp.files.refusals import said_of
from webapp.files.schemas import (
    LEAST_SECONDS,
    MOST_SECONDS,
    AnyPurpose,
    DeletedFile,
    FileList,
    FileObject,
    SentPurpose,
    file_object,
)
from webapp.files.services.delete import delete_file
from webapp.files.services.store import store

router = Router(tags=["Files"])
# What one request may hold (webapp/core/body_limit.py lets it through); what is larger comes in parts.
FILE_BYTES = 512 * 2**20


class FileForm(Schema):
    """The fields beside the file."""

    purpose: SentPurpose
    anchor: Literal["created_at"] | None = Field(None, alias="expires_after[anchor]")
    seconds: int | None = Field(None, alias="expires_after[seconds]", ge=LEAST_SECONDS, le=MOST_SECONDS)


class FileQuery(Schema):
    """Which files, and which page of them."""

    purpose: AnyPurpose | None = None
    after: str | None = None
    limit: int = Field(10_000, ge=1, le=10_000)
    order: Literal["asc", "desc"] = "desc"


@router.post("/files", auth=needs(Scope.DATA_WRITE), response=FileObject, operation_id="createFile")
def create(request: HttpRequest, form: Form[FileForm], file: Sent[UploadedFile]) -> FileObject:
    """Sends a file. One for fine-tuning is `uploaded` at first; its rows are read in the background, then it is `processed` or `error`."""
    caller = request.auth  # type: ignore[attr-defined]
    require(caller.user, caller.team, "launch")
    size = int(file.size or 0)
    if size > FILE_BYTES:
        raise ApiError(413, f"The file has {size} bytes; one request takes {FILE_BYTES}. Send it in parts (/v1/uploads).", param="file")
    if (form.anchor is None) != (form.seconds is None):
        raise ApiError(400, "'expires_after' has both 'anchor' and 'seconds'.", param="expires_after")
    with said_of("file"):
        stored = store(
            team=caller.team,
            user=caller.user,
            filename=str(file.name or ""),
            purpose=Purpose(form.purpose),
            bytes_total=size,
            source=cast(IO[bytes], file),
            kept_seconds=form.seconds,
        )
    return file_object(stored)


@router.get("/files", auth=needs(Scope.DATA_READ), response=FileList, operation_id="listFiles")
def list_files(request: HttpRequest, query: Query[FileQuery]) -> Any:
    """The team's files, the newest first."""
    caller = request.auth  # type: ignore[attr-defined]
    rows = files_of(caller.user, caller.team)
    if query.purpose:
        rows = rows.filter(purpose=query.purpose)
    return page(rows, file_object, query.after, query.limit, query.order, prefix="file-")


@router.get("/files/{file_id}", auth=needs(Scope.DATA_READ), response=FileObject, operation_id="retrieveFile")
def retrieve(request: HttpRequest, file_id: str) -> FileObject:
    """One file."""
    return file_object(_file(request, file_id))


@router.delete("/files/{file_id}", auth=needs(Scope.DATA_WRITE), response=DeletedFile, operation_id="deleteFile")
def delete(request: HttpRequest, file_id: str) -> DeletedFile:
    """Deletes a file. Rows that a job was trained on stay with the job's run, as a dataset on the pages."""
    file = _file(request, file_id, "launch")
    delete_file(file, request.auth.user)  # type: ignore[attr-defined]
    return DeletedFile(id=f"file-{file.pk.hex}")


@router.get("/files/{file_id}/content", auth=needs(Scope.DATA_READ), operation_id="downloadFile")
def content(request: HttpRequest, file_id: str) -> HttpResponseBase:
    """The bytes as they were sent; by Range, too."""
    file = _file(request, file_id)
    if file.upload is None:
        raise Http404
    kind = "text/csv; charset=utf-8" if file.purpose == Purpose.RESULTS else "application/octet-stream"
    return file_response(request, Slice(file.upload.path, 0, file.bytes, file.sha256, file.filename, kind))


def _file(request: HttpRequest, file_id: str, action: str = "view") -> File:
    caller = request.auth  # type: ignore[attr-defined]
    return get_file(caller.user, caller.team, parse("file-", file_id), action)
