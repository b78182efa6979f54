"""Use cases: a dataset out of uploaded files, and a further version of it. Both give a draft, to be mapped and validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Max

from jobs.errors import UserError
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team, User
from webapp.accounts.services.audit import record
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.datasets.services.finish import finish
from webapp.datasets.services.sniff import sniff

SPLITS = ("train", "validation", "test")


def create_dataset(*, team: Team, user: User, name: str, uploads: Mapping[str, UUID]) -> DatasetVersion:
    """A new dataset with a draft of its first version.

    `uploads` gives the upload of each split; `train` must be there. Raises `UserError`: `dataset_name_taken`, `upload_unknown`,
    `upload_incomplete`, and what the box has to say of a file (`where.field` names the split).
    """
    if Dataset.objects.filter(team=team, name=name).exists():
        raise UserError("dataset_name_taken", name=name, where={"field": "name"})
    files, recognised = _recognise(team, uploads)
    try:
        with transaction.atomic():
            dataset = Dataset.objects.create(team=team, name=name, created_by=user)
            return _draft(dataset, user, files, recognised)
    except IntegrityError:
        raise UserError("dataset_name_taken", name=name, where={"field": "name"}) from None


def add_version(*, dataset: Dataset, user: User, uploads: Mapping[str, UUID]) -> DatasetVersion:
    """A draft of a dataset's next version; it takes over the mapping of the one before. Raises `UserError` as `create_dataset`."""
    files, recognised = _recognise(dataset.team, uploads)
    with transaction.atomic():
        Dataset.objects.select_for_update().get(pk=dataset.pk)
        return _draft(dataset, user, files, recognised)


def _recognise(team: Team, uploads: Mapping[str, UUID]) -> tuple[dict[str, Upload], dict[str, Any]]:
    """The complete uploads by split, and what was recognised in the training file. The others are read too: a refusal now is cheaper."""
    files: dict[str, Upload] = {}
    facts: dict[str, dict[str, Any]] = {}
    for split in (split for split in SPLITS if split in uploads):
        try:
            upload = Upload.objects.filter(pk=uploads[split], team=team).first()
            if upload is None:
                raise UserError("upload_unknown")
            files[split] = finish(upload)
            facts[split] = sniff(files[split])
        except UserError as error:
            error.where = {**error.where, "field": split}
            raise
    if "train" not in files:
        raise UserError("upload_unknown", where={"field": "train"})
    return files, facts["train"]


def _draft(dataset: Dataset, user: User, files: dict[str, Upload], recognised: dict[str, Any]) -> DatasetVersion:
    before = dataset.versions.order_by("-number").first()
    number = (dataset.versions.aggregate(last=Max("number"))["last"] or 0) + 1
    sent = {split: upload.filename for split, upload in files.items()}
    record(Action.DATASET_UPLOADED, team=dataset.team, actor=user, thing=dataset, name=f"{dataset.name} @{number}", detail=sent)
    return DatasetVersion.objects.create(
        dataset=dataset,
        number=number,
        train_upload=files["train"],
        validation_upload=files.get("validation"),
        test_upload=files.get("test"),
        sniffed=recognised,
        mapping=before.mapping if before else None,
        created_by=user,
    )
