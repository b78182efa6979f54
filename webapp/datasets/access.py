"""The only door to datasets and their versions."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404

from webapp.accounts.access import Person, require, visible_to
from webapp.datasets.models import Dataset, DatasetVersion


def get_dataset(user: Person, dataset_id: UUID, action: str = "view") -> Dataset:
    """The dataset, if the person may do `action` with it. Raises `Http404` for a stranger, `PermissionDenied` for a lesser role."""
    dataset = visible_to(user, Dataset.objects.select_related("team", "created_by")).filter(pk=dataset_id).first()
    if dataset is None:
        raise Http404
    require(user, dataset.team, action)
    return dataset


def get_version(user: Person, version_id: UUID, action: str = "view") -> DatasetVersion:
    """The version, by the same rule as its dataset."""
    rows = DatasetVersion.objects.select_related("dataset__team", "train_upload", "validation_upload", "test_upload", "created_by")
    version = visible_to(user, rows, team="dataset__team").filter(pk=version_id).first()
    if version is None:
        raise Http404
    require(user, version.dataset.team, action)
    return version
