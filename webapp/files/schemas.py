"""Files and uploads as the API says them, in OpenAI's fields."""

from __future__ import annotations

from typing import Literal

from ninja import Schema
from pydantic import ConfigDict, Field

from webapp.api.text import Text
from webapp.files.models import File, PartedUpload

# How long a file may be told to live, in seconds: an hour to thirty days.
LEAST_SECONDS, MOST_SECONDS = 3600, 2_592_000
SentPurpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
AnyPurpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals", "fine-tune-results"]


class ExpiresAfter(Schema):
    """When a file is deleted by itself: so many seconds after it was made."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=LEAST_SECONDS, le=MOST_SECONDS)


class FileObject(Schema):
    """A file. `graft` names the dataset on the pages that a file for fine-tuning is."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: AnyPurpose
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None
    sha256: str
    dataset_version: str | None


class FileList(Schema):
    """A page of files; the next begins `after` the `last_id`."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(Schema):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class UploadAsked(Schema):
    """A file that will come in parts."""

    bytes: int = Field(ge=1, le=2**53)
    filename: Text = Field(min_length=1, max_length=1000)
    mime_type: Text = Field(max_length=127)
    purpose: SentPurpose
    expires_after: ExpiresAfter | None = None


class CompleteAsked(Schema):
    """Which parts the file is made of, in order."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"part_ids": []}]})

    part_ids: list[str] = Field(max_length=10_000)
    md5: str | None = Field(None, pattern="^[0-9A-Fa-f]{32}$")


class UploadObject(Schema):
    """A file that comes in parts; `file` is what became of it."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: SentPurpose
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None


class PartObject(Schema):
    """One part that is there."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


def file_object(file: File) -> FileObject:
    """A file as the API says it. Needs `file.dataset_version`."""
    return FileObject(
        id=f"file-{file.pk.hex}",
        bytes=file.bytes,
        created_at=int(file.created_at.timestamp()),
        expires_at=int(file.expires_at.timestamp()) if file.expires_at else None,
        filename=file.filename,
        purpose=file.purpose,  # type: ignore[arg-type]
        status=file.status.value,  # type: ignore[arg-type]
        status_details=file.status_details,
        sha256=file.sha256,
        dataset_version=str(file.dataset_version_id) if file.dataset_version_id else None,
    )


def upload_object(upload: PartedUpload) -> UploadObject:
    """An upload as the API says it."""
    return UploadObject(
        id=f"upload_{upload.pk.hex}",
        bytes=upload.bytes,
        created_at=int(upload.created_at.timestamp()),
        expires_at=int(upload.expires_at.timestamp()),
        filename=upload.filename,
        purpose=upload.purpose,  # type: ignore[arg-type]
        status=upload.status,  # type: ignore[arg-type]
        file=file_object(upload.file) if upload.file else None,
    )
