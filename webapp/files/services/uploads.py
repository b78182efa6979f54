"""Use cases of a file that comes in parts: announce it, add a part, put the parts together, give it up."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import IO, cast
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from jobs.errors import UserError
from webapp.accounts.models import Team, User
from webapp.core.locks import alone
from webapp.datasets.services.create_upload import label_of
from webapp.files.models import File, Part, PartedUpload, Purpose
from webapp.files.services.delete import delete_file
from webapp.files.services.store import store
from webapp.quotas.services.limits import check_storage
from webapp.settings.env import ENV

# OpenAI's own limits.
PART_BYTES = 64 * 2**20
UPLOAD_BYTES = 8 * 2**30
OPEN = timedelta(hours=1)
_PIECE_BYTES = 256 * 1024
Status = PartedUpload.Status


class UploadRefused(Exception):
    """The upload is as it was before; `param` names the field at fault, empty where it is the upload's state."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.message, self.param = message, param


def announce(
    *, team: Team, user: User, filename: str, purpose: Purpose, bytes_total: int, mime_type: str, kept_seconds: int | None = None
) -> PartedUpload:
    """An upload that takes parts for an hour. Raises `UserError`: `file_empty`, `upload_too_large`, `quota_storage`."""
    limit = min(UPLOAD_BYTES, ENV.upload_limit_bytes)
    if bytes_total < 1:
        raise UserError("file_empty")
    if bytes_total > limit:
        raise UserError("upload_too_large", bytes=bytes_total, limit=limit)
    check_storage(team, bytes_total)
    return PartedUpload.objects.create(
        team=team,
        created_by=user,
        filename=label_of(filename),
        purpose=purpose,
        mime_type=mime_type,
        bytes=bytes_total,
        file_expires_seconds=kept_seconds,
        expires_at=timezone.now() + OPEN,
    )


def add_part(upload: PartedUpload, bytes_total: int, source: IO[bytes]) -> Part:
    """Keeps one part; parts may come at once and in any order. Raises `UploadRefused`, and `UserError("quota_storage")`."""
    _check_open(upload)
    if not 0 < bytes_total <= PART_BYTES:
        raise UploadRefused(f"A part has between 1 and {PART_BYTES} bytes; this one has {bytes_total}.", "data")
    part = Part(pk=uuid4(), upload=upload, bytes=bytes_total)
    try:
        _write(part.path, source)
        with transaction.atomic():
            # Whoever completes or cancels the upload meanwhile waits for this row, or this for theirs.
            _check_open(PartedUpload.objects.select_for_update().get(pk=upload.pk))
            there = upload.parts.aggregate(total=Sum("bytes"))["total"] or 0
            if there + bytes_total > upload.bytes:
                raise UploadRefused(f"The upload was announced with {upload.bytes} bytes; with this part it would have more.", "data")
            check_storage(upload.team, there + bytes_total)
            part.save(force_insert=True)
    except BaseException:
        part.path.unlink(missing_ok=True)
        raise
    return part


def complete(upload: PartedUpload, user: User, part_ids: Sequence[UUID], md5: str | None = None) -> File:
    """The file made of the parts in this order. Raises `UploadRefused`, and `UserError` as `store`; then the upload stays open."""
    with alone(Path(f"{Part(pk=upload.pk).path}.lock")) as mine:
        if not mine:
            raise UploadRefused("The upload is being completed.")
        upload.refresh_from_db()
        _check_open(upload)
        paths = _paths(upload, part_ids, md5)
        with closing(_Joined(paths)) as source:
            file = store(
                team=upload.team,
                user=user,
                filename=upload.filename,
                purpose=Purpose(upload.purpose),
                bytes_total=upload.bytes,
                source=cast(IO[bytes], source),
                kept_seconds=upload.file_expires_seconds,
            )
        changed = PartedUpload.objects.filter(pk=upload.pk, status=Status.PENDING).update(status=Status.COMPLETED, file=file)
        upload.refresh_from_db()
        if changed != 1:
            delete_file(file, user)
            raise UploadRefused(f"The upload is {upload.status}.")
    forget_parts(upload)
    return file


def close(upload: PartedUpload, status: Status) -> None:
    """Pending -> cancelled or expired, its parts thrown away. Raises `UploadRefused` where it is not pending any more."""
    if PartedUpload.objects.filter(pk=upload.pk, status=Status.PENDING).update(status=status) != 1:
        upload.refresh_from_db()
        raise UploadRefused(f"The upload is {upload.status}.")
    upload.refresh_from_db()
    forget_parts(upload)


def forget_parts(upload: PartedUpload) -> None:
    """Deletes the parts: rows first, then their files."""
    paths = [part.path for part in upload.parts.all()]
    upload.parts.all().delete()
    for path in (*paths, Path(f"{Part(pk=upload.pk).path}.lock")):
        path.unlink(missing_ok=True)


def _check_open(upload: PartedUpload) -> None:
    if upload.status != Status.PENDING:
        raise UploadRefused(f"The upload is {upload.status}.")
    if upload.expires_at <= timezone.now():
        raise UploadRefused("The upload has expired: it was to be completed within an hour.")


def _paths(upload: PartedUpload, part_ids: Sequence[UUID], md5: str | None) -> list[Path]:
    """The files of the named parts, which together must be what was announced."""
    parts = upload.parts.in_bulk()
    if len(set(part_ids)) != len(part_ids) or not set(part_ids) <= set(parts):
        raise UploadRefused("Every part must be one of this upload's, and be named once.", "part_ids")
    total = sum(parts[key].bytes for key in part_ids)
    if total != upload.bytes:
        raise UploadRefused(f"The parts have {total} bytes together; the upload was announced with {upload.bytes}.", "part_ids")
    paths = [parts[key].path for key in part_ids]
    if md5 and _md5(paths) != md5.lower():
        raise UploadRefused("The checksum does not match: the file was damaged on its way.", "md5")
    return paths


def _md5(paths: Sequence[Path]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def _write(path: Path, source: IO[bytes]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        while piece := source.read(_PIECE_BYTES):
            file.write(piece)
        file.flush()
        os.fsync(handle)


class _Joined:
    """Several files read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._waiting = list(reversed(paths))
        self._open: IO[bytes] | None = None

    def read(self, size: int = -1) -> bytes:
        """The next bytes; none at the end of the last file."""
        while self._open or self._waiting:
            if self._open is None:
                self._open = self._waiting.pop().open("rb")
            if piece := self._open.read(size):
                return piece
            self._open.close()
            self._open = None
        return b""

    def close(self) -> None:
        """Closes the file that is being read."""
        if self._open:
            self._open.close()
