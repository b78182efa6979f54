"""Use case: a file is not wanted any more, or its time is over."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone

from webapp.accounts.audit_actions import Action
from webapp.accounts.models import User
from webapp.accounts.services.audit import record
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.datasets.services.discard_upload import discard_upload
from webapp.files.models import File


def delete_file(file: File, actor: User | None) -> bool:
    """Takes the file away: from now on its id is unknown. False where it was so already. `actor` None is the clock.

    Its dataset goes too, unless runs were made from it or it has other versions: those stand on its rows, and it stays on the pages.
    """
    with transaction.atomic():
        upload, version = file.upload, file.dataset_version
        rows = File.objects.filter(pk=file.pk, deleted_at=None)
        if rows.update(deleted_at=timezone.now(), upload=None, dataset_version=None) != 1:
            return False
        if version is not None:
            _delete_dataset(version, actor)
    if upload is not None and not discard_upload(upload):
        # The dataset has the bytes now; when it goes they are swept.
        Upload.objects.filter(pk=upload.pk).update(expires_at=timezone.now())
    return True


def _delete_dataset(version: DatasetVersion, actor: User | None) -> None:
    dataset = Dataset.objects.select_related("team").get(pk=version.dataset_id)
    if dataset.versions.exclude(pk=version.pk).exists():
        return
    folders = (version.folder, version.check_folder)
    try:
        with transaction.atomic():
            record(Action.DATASET_DELETED, team=dataset.team, actor=actor, thing=dataset)
            version.delete()
            dataset.delete()
    except ProtectedError:
        return
    for folder in folders:
        transaction.on_commit(partial(_remove, folder))


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
