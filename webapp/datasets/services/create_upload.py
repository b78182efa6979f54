"""Use case: announce a file; its bytes come in parts (`receive_part`)."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import PurePath

from django.db import transaction
from django.utils import timezone

from jobs.data.sources import SUFFIXES
from jobs.errors import UserError
from webapp.accounts.models import Team, User
from webapp.datasets.models import Upload
from webapp.quotas.services.limits import check_storage
from webapp.settings.env import ENV

# An upload that nobody goes on with is swept away after this time; each part counts anew.
KEPT = timedelta(hours=48)
NAME_LENGTH = 255


def label_of(filename: str) -> str:
    """A file name as a label: its last part, without control characters. It never becomes a path."""
    last = re.split(r"[/\\]", filename)[-1]
    return "".join(character for character in last if character.isprintable()).strip()[-NAME_LENGTH:] or "file"


def suffix_of(filename: str) -> str:
    """What the engine wants to know of a name: `csv` of `Tickets.CSV.gz`; "" where it is no suffix that speaks for a kind of file."""
    suffixes = [suffix[1:].lower() for suffix in PurePath(filename).suffixes if suffix.lower() != ".gz"]
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else ""


def create_upload(*, team: Team, user: User, filename: str, bytes_total: int) -> Upload:
    """A new upload with an empty file. Raises `UserError`: `file_empty`, `upload_too_large`, `quota_storage`."""
    if bytes_total < 1:
        raise UserError("file_empty")
    if bytes_total > ENV.upload_limit_bytes:
        raise UserError("upload_too_large", bytes=bytes_total, limit=ENV.upload_limit_bytes)
    with transaction.atomic():
        check_storage(team, bytes_total, lock=True)
        upload = Upload.objects.create(
            team=team, created_by=user, filename=label_of(filename), bytes_total=bytes_total, expires_at=timezone.now() + KEPT
        )
    upload.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(upload.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    return upload
