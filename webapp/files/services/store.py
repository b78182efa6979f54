"""Use case: take a whole file. What is for fine-tuning becomes a dataset of the team, to be validated in the background."""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePath
from typing import IO, Any
from uuid import uuid4

from django.db import transaction
from django.utils import timezone

from jobs.data.formats import mapping_from_json
from jobs.errors import UserError
from jobs.spec import Mapping
from webapp.accounts.models import Team, User
from webapp.datasets.mapping import columns_of, mappings_of, suggested_mapping
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.datasets.services.create_dataset import create_dataset
from webapp.datasets.services.discard_upload import discard_upload
from webapp.datasets.services.start_validation import Choices, start_validation
from webapp.datasets.services.store_file import store_file
from webapp.files.models import PREFERENCES, File, Purpose

# Bytes on which a file stands are swept by the file's own clock, not by that of uploads.
_FOR_EVER = timedelta(days=365 * 100)
_DATASET_NAME_LENGTH = 100


def store(
    *, team: Team, user: User, filename: str, purpose: Purpose, bytes_total: int, source: IO[bytes], kept_seconds: int | None = None
) -> File:
    """The file with the bytes of `source`, which holds `bytes_total` of them; it is deleted `kept_seconds` after.

    Raises `UserError` as `create_upload`, and for fine-tuning what the box has to say of a file that it cannot read as rows; then nothing
    is kept.
    """
    upload = store_file(team=team, user=user, filename=filename, bytes_total=bytes_total, source=source)
    try:
        version = _dataset(team, user, upload) if purpose == Purpose.FINE_TUNE else None
    except UserError:
        discard_upload(upload)
        raise
    return keep(upload, purpose=purpose, kept_seconds=kept_seconds, dataset_version=version)


def keep(upload: Upload, *, purpose: Purpose, kept_seconds: int | None = None, **more: Any) -> File:
    """The file that stands on a complete upload; `more` are its other columns. Raises `IntegrityError`."""
    now = timezone.now()
    with transaction.atomic():
        Upload.objects.filter(pk=upload.pk).update(expires_at=now + _FOR_EVER)
        return File.objects.create(
            team=upload.team,
            created_by=upload.created_by,
            filename=upload.filename,
            purpose=purpose,
            bytes=upload.bytes_total,
            sha256=upload.sha256,
            upload=upload,
            expires_at=now + timedelta(seconds=kept_seconds) if kept_seconds else None,
            **more,
        )


def _dataset(team: Team, user: User, upload: Upload) -> DatasetVersion:
    """A dataset of the file alone, all of its rows for training: what measures them comes as a file of its own."""
    version = create_dataset(team=team, user=user, name=_free_name(team, upload.filename), uploads={"train": upload.pk})
    mapping = chosen_mapping(version)
    if mapping is not None:
        start_validation(version, Choices(mapping=mapping, validation_share=0.0))
    return version


def chosen_mapping(version: DatasetVersion) -> Mapping | None:
    """How the rows are read where nobody can be asked: as chats where they are chats. None where nothing was recognised."""
    if PREFERENCES in columns_of(version):
        return None
    for known in mappings_of(version):
        if known["format"] == "messages":
            return mapping_from_json(known)
    try:
        return suggested_mapping(version)
    except UserError:
        return None


def _free_name(team: Team, filename: str) -> str:
    """The file's name without its end; with a mark of its own where the team has a dataset called so."""
    name = PurePath(filename).name.split(".")[0][:_DATASET_NAME_LENGTH].strip() or "file"
    return f"{name} {uuid4().hex[:8]}" if Dataset.objects.filter(team=team, name=name).exists() else name
