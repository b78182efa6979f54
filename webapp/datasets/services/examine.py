"""Use case: look at the rows of a ready version as a whole, in the box. The body of the task; nothing waits for it but a page."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction

from jobs.data.check_files import FOLDER
from jobs.data.examination import PAIRS
from jobs.errors import GraftError, UserError
from webapp.core.box import GIBI, MEBI, Limits, run_in_box
from webapp.core.locks import alone
from webapp.core.progress import RowProgress
from webapp.datasets.models import DatasetVersion
from webapp.work.outbox import SHORT_QUEUE, ring

TASK = "datasets.examine"
Examined = DatasetVersion.Examined
LIMITS = Limits(memory_bytes=4 * GIBI, cpu_seconds=540, wall_seconds=580, file_bytes=256 * MEBI)


def announce(version: DatasetVersion) -> None:
    """Has a ready version looked at (again); within the caller's transaction. Raises `UserError("dataset_not_ready")`."""
    rows = DatasetVersion.objects.filter(pk=version.pk, state=DatasetVersion.State.READY)
    with transaction.atomic():
        if rows.update(examined=Examined.WAITING, progress={}) != 1:
            raise UserError("dataset_not_ready", name=version)
        ring(TASK, version.pk, SHORT_QUEUE)


def examine(version_id: UUID) -> None:
    """Waiting -> done or failed. Called twice, late, or for a version that is gone, it changes nothing."""
    folder = DatasetVersion(pk=version_id).check_folder
    with alone(folder.with_suffix(".lock")) as mine:
        version = DatasetVersion.objects.filter(pk=version_id, examined=Examined.WAITING).first()
        if not mine or version is None:
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{version_id}-") as temporary:
            try:
                found = _look(version, Path(temporary))
            except GraftError as error:
                _close(version, examined=Examined.FAILED, examination={"refusal": error.to_json()})
                return
            folder.mkdir(mode=0o700, exist_ok=True)
            os.replace(Path(temporary) / PAIRS, folder / PAIRS)
        _close(version, examined=Examined.DONE, examination=found)


def keep_check(version: DatasetVersion, written: Path) -> None:
    """Moves what a validation kept beside the rows (`written/check`) to the version's folder of checks, in the place of what was there."""
    folder = version.check_folder
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    if (written / FOLDER).is_dir():
        os.rename(written / FOLDER, folder)


def _look(version: DatasetVersion, out: Path) -> dict[str, Any]:
    kept = version.check_folder
    return run_in_box(
        ["examine", str(version.folder), "--out", str(out), "--lines", str(kept), "--json"],
        readable={version.folder: str(version), **({kept: "check"} if kept.is_dir() else {})},
        writable=out,
        limits=LIMITS,
        on_line=RowProgress(DatasetVersion.objects.filter(pk=version.pk, examined=Examined.WAITING)),
    )


def _close(version: DatasetVersion, **fields: Any) -> None:
    DatasetVersion.objects.filter(pk=version.pk, examined=Examined.WAITING).update(progress={}, **fields)
