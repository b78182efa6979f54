"""Use case: read every row of a version in the box, and publish its files, or say what is wrong. The body of the task."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction

from jobs.errors import GraftError
from webapp.core.box import GIBI, Limits, run_in_box
from webapp.core.locks import alone
from webapp.core.progress import RowProgress
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.create_upload import suffix_of
from webapp.datasets.services.examine import announce, keep_check
from webapp.settings.env import ENV

State = DatasetVersion.State
# Below the soft time limit of the task, so that the version ends with a message and not with a lost worker.
LIMITS = Limits(memory_bytes=4 * GIBI, cpu_seconds=240, wall_seconds=260, file_bytes=2 * ENV.upload_limit_bytes)


def validate(version_id: UUID) -> None:
    """Validating -> ready or invalid. Called twice, late, or for a version that is gone, it changes nothing."""
    folder = DatasetVersion(pk=version_id).folder
    with alone(folder.with_suffix(".lock")) as mine:
        version = DatasetVersion.objects.filter(pk=version_id, state=State.VALIDATING).first()
        if not mine or version is None:
            return
        # What is there without a ready version was left behind by a validation that was killed.
        for rest in (folder, *folder.parent.glob(f".{version_id}-*")):
            shutil.rmtree(rest, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{version_id}-") as temporary:
            try:
                answer = _read_rows(version, Path(temporary))
            except GraftError as error:
                _close(version, state=State.INVALID, message=f"{error.message} {error.remedy}", report={"refusal": error.to_json()})
                return
            keep_check(version, Path(temporary) / "rows")
            if not answer["ok"]:
                _close(version, state=State.INVALID, report=answer["report"])
                return
            os.rename(Path(temporary) / "rows", folder)
        manifest = answer["manifest"]
        with transaction.atomic():
            _close(version, state=State.READY, report=answer["report"], manifest=manifest, sha256=manifest_sha256(manifest))
            announce(version)


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """The address of a version: SHA-256 of its manifest as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_rows(version: DatasetVersion, temporary: Path) -> dict[str, Any]:
    """What `python -m jobs validate` says; the files of rows stand under `temporary/rows`."""
    out = temporary / "rows"
    out.mkdir(mode=0o700)
    uploads = {"train": version.train_upload, "validation": version.validation_upload, "test": version.test_upload}
    request = {
        "files": {split: str(upload.path) if upload else None for split, upload in uploads.items()},
        "mapping": version.mapping,
        "skip_bad_rows": version.skip_bad_rows,
        "validation_share": version.validation_share,
        "test_share": version.test_share,
        "seed": version.seed,
        "out": str(out),
        "suffixes": {split: suffix_of(upload.filename) for split, upload in uploads.items() if upload},
    }
    names = {upload.path: upload.filename for upload in uploads.values() if upload}
    progress = RowProgress(DatasetVersion.objects.filter(pk=version.pk, state=State.VALIDATING))
    return run_in_box(["validate", "--json"], request=request, readable=names, writable=out, limits=LIMITS, on_line=progress)


def _close(version: DatasetVersion, *, state: State, **fields: Any) -> None:
    DatasetVersion.objects.filter(pk=version.pk, state=State.VALIDATING).update(state=state, progress={}, **fields)
