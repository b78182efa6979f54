"""Runs that ended, with artifacts as the engine packs them, out of rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.export.archive import archive
from tests.webapp.cast import LATER, Cast
from webapp.catalog.models import BaseModel
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.runs.models import Artifact, Run


def make_version(cast: Cast, name: str = "Tickets") -> DatasetVersion:
    """A ready version without files."""
    upload = Upload.objects.create(team=cast.team, created_by=cast.alice, filename="train.csv", bytes_total=9, expires_at=LATER)
    dataset = Dataset.objects.create(team=cast.team, name=name, created_by=cast.alice)
    return DatasetVersion.objects.create(dataset=dataset, number=1, state="ready", train_upload=upload, created_by=cast.alice)


def make_base(cast: Cast, name: str = "Tiny", **fields: Any) -> BaseModel:
    """A ready model of the team."""
    values = {"source": "hub", "repository": "a/tiny", "state": "ready", "created_by": cast.alice, **fields}
    return BaseModel.objects.create(team=cast.team, name=name, **values)


def make_run(cast: Cast, name: str, base: BaseModel, version: DatasetVersion, **fields: Any) -> Run:
    """A run that succeeded."""
    values = {"method": "lora", "spec": {"method": {"id": "lora"}}, "state": "succeeded", "attempt": 1, **fields}
    return Run.objects.create(
        team=cast.team, name=name, created_by=cast.alice, dataset_version=version, base_model=base, lease_expires_at=LATER,
        queued_at=LATER, **values,
    )  # fmt: skip


def make_artifact(run: Run, kind: str, source: Path | None = None, **details: Any) -> Artifact:
    """An artifact of a run: the files of `source` as the engine packs them, or a row of ten bytes without any."""
    name = f"{run.name}-{kind}.zip"
    if source is None:
        return Artifact.objects.create(
            run=run, attempt=1, kind=kind, name=name, path=f"artifacts/{name}", bytes=10, sha256="1" * 64, details=details
        )
    folder = run.attempt_folder(1)
    event = archive(source, folder / "artifacts" / name).event(kind, folder, details)
    fields = ("name", "kind", "path", "bytes", "sha256", "files", "details")
    return Artifact.objects.create(run=run, attempt=1, **{field: event[field] for field in fields})
