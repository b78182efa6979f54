"""Use case: take one part of an upload from a stream to the disk.

Two parts never write at once (a lock on the file), and a part counts only when it is whole, on the disk, and the row's offset was
still the one that it began at. Bytes beyond the offset of the row are nothing: the next part writes over them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from django.utils import timezone

from jobs.errors import UserError
from webapp.datasets.models import Upload
from webapp.datasets.services.create_upload import KEPT
from webapp.datasets.services.finish import finish
from webapp.quotas.services.limits import check_storage

PIECE_BYTES = 256 * 1024
ALGORITHMS = ("sha256", "sha1", "md5")


class PartRefused(Exception):
    """The part was not taken, and the upload is as it was before. `status` is the HTTP status that tus gives the case."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Checksum:
    """What the sender says of a part: algorithm (one of `ALGORITHMS`) and digest."""

    algorithm: str
    digest: bytes


def receive_part(*, upload_id: UUID, offset: int, read: Callable[[int], bytes], checksum: Checksum | None = None) -> Upload:
    """Appends what `read(size)` gives until it gives nothing; the last part completes the upload. Returns the row as it is then.

    Raises `PartRefused`: 404 unknown, 409 another offset or already complete, 413 more than was announced, 423 another part is being
    written, 460 checksum, 507 disk full; 413 too where the team's storage is full.
    """
    with _locked(upload_id) as handle:
        upload = Upload.objects.select_related("team").get(pk=upload_id)
        if upload.state != Upload.State.RECEIVING or upload.bytes_received != offset:
            raise PartRefused(409, f"The next part begins at {upload.bytes_received}, not at {offset}.")
        _check_quota(upload)
        received = _write(handle, upload, read, checksum)
        rows = Upload.objects.filter(pk=upload.pk, state=Upload.State.RECEIVING, bytes_received=offset)
        if rows.update(bytes_received=offset + received, expires_at=timezone.now() + KEPT) != 1:
            raise PartRefused(409, "The upload was changed meanwhile.")
        upload.refresh_from_db()
        return finish(upload) if upload.bytes_received == upload.bytes_total else upload


@contextmanager
def _locked(upload_id: UUID) -> Iterator[int]:
    try:
        handle = os.open(Upload(pk=upload_id).path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise PartRefused(404, "There is no such upload.") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PartRefused(423, "Another part is being written.") from None
        yield handle
    finally:
        os.close(handle)


def _check_quota(upload: Upload) -> None:
    """What was announced was counted then; a limit that has been lowered since, or filled by runs, is kept now."""
    try:
        check_storage(upload.team)
    except UserError as refusal:
        raise PartRefused(413, f"{refusal.message} {refusal.remedy}") from refusal


def _write(handle: int, upload: Upload, read: Callable[[int], bytes], checksum: Checksum | None) -> int:
    """Writes the part behind the upload's offset and returns its length."""
    start = position = upload.bytes_received
    digest = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
    try:
        while piece := read(PIECE_BYTES):
            if position + len(piece) > upload.bytes_total:
                raise PartRefused(413, f"The file was announced with {upload.bytes_total} bytes; this part goes beyond.")
            if digest:
                digest.update(piece)
            position += os.pwrite(handle, piece, position)
        os.fsync(handle)
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os.ftruncate(handle, start)
        raise PartRefused(507, "The disk of the server is full.") from None
    if checksum and digest and not hmac.compare_digest(digest.digest(), checksum.digest):
        raise PartRefused(460, "The checksum does not match: the part was damaged on its way.")
    return position - start
