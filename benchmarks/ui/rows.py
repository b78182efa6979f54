"""Rows that several of the measurements need; nothing trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webapp.runs.models import Run


def bench(name: str) -> tuple[Any, ...]:
    """A team, its owner, a version of a dataset and a base model."""
    from django.utils.timezone import now

    from webapp.accounts.models import Membership, Role, Team, User
    from webapp.catalog.models import BaseModel
    from webapp.datasets.models import Dataset, DatasetVersion, Upload

    user, team = User.objects.create_user(username=name), Team.objects.create(name=name, slug=name)
    Membership.objects.create(team=team, user=user, role=Role.OWNER)
    upload = Upload.objects.create(team=team, created_by=user, filename="rows.jsonl", bytes_total=1, expires_at=now())
    dataset = Dataset.objects.create(team=team, name="rows", created_by=user)
    version = DatasetVersion.objects.create(
        dataset=dataset, number=1, state="ready", train_upload=upload, created_by=user, report={}, manifest={}
    )
    return team, user, version, BaseModel.objects.create(name="SmolLM2-135M", source="hub", state="ready")


def running(team: Any, user: Any, version: Any, base: Any) -> Run:
    """A run that is being trained, as far as its row says."""
    from django.utils.timezone import now

    from jobs.spec import RunSpec
    from webapp.runs.models import Run

    spec = RunSpec.from_json({"model": {"path": "model"}, "data": {"train": "train.jsonl"}}).to_json()
    return Run.objects.create(
        team=team, name="long", created_by=user, dataset_version=version, base_model=base, method="lora", spec=spec, state="running",
        attempt=1, lease_expires_at=now(), queued_at=now(), started_at=now(),
    )  # fmt: skip
