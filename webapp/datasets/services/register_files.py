"""Use case: a dataset out of files of the host, by the same way as an upload, ready when it returns."""

from __future__ import annotations

from pathlib import Path

from jobs.errors import UserError
from jobs.spec import Mapping
from webapp.accounts.models import Team, User
from webapp.datasets.mapping import suggested_mapping
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.create_dataset import create_dataset
from webapp.datasets.services.start_validation import Choices, settle
from webapp.datasets.services.store_file import store_file
from webapp.datasets.services.validate import validate


def create_dataset_from_files(team: Team, user: User, name: str, files: dict[str, Path], mapping: Mapping | None = None) -> DatasetVersion:
    """A ready version of a new dataset. `files` gives the file of each split (`train`, and where there are any `validation`, `test`).

    Without a mapping the one that was recognised is taken. Raises `UserError`, also where a row cannot be used.
    """
    uploads = {}
    for split, path in files.items():
        with path.open("rb") as source:
            size = path.stat().st_size
            uploads[split] = store_file(team=team, user=user, filename=path.name, bytes_total=size, source=source).pk
    version = create_dataset(team=team, user=user, name=name, uploads=uploads)
    settle(version, Choices(mapping=mapping or suggested_mapping(version)))
    validate(version.pk)
    version.refresh_from_db()
    if version.state != DatasetVersion.State.READY:
        raise UserError("mapping_invalid", reason=version.message or "some rows cannot be used; see the dataset's report")
    return version
