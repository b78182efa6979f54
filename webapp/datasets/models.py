"""Uploads (bytes as they came), datasets, and their versions (immutable rows addressed by sha256)."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models

from webapp.accounts.models import Team, User


class Upload(models.Model):
    """One file as it came from a browser, received in parts (tus). The file's name is a label, never a path."""

    class State(models.TextChoices):
        RECEIVING = "receiving", "Receiving"
        COMPLETE = "complete", "Complete"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="uploads")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    filename = models.CharField(max_length=255)
    bytes_total = models.BigIntegerField()
    bytes_received = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.RECEIVING)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.filename

    @property
    def path(self) -> Path:
        """Where the bytes are."""
        return Path(settings.GRAFT_VAR) / "uploads" / str(self.id)


class Dataset(models.Model):
    """A named dataset of a team; its rows are in its versions."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    licence = models.CharField(max_length=80, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "name"], name="dataset_name_unique_in_team")]

    def __str__(self) -> str:
        return self.name


class DatasetVersion(models.Model):
    """One state of a dataset. From `ready` on it never changes; `sha256` is that of its manifest.

    Once it is ready a second pass looks at the rows as a whole: `examination` is its result (`jobs.data.examination`). `progress`: how far
    the validation or the second pass is, `name done total unit` of a `phase` event and `started`, the second since the epoch when it began.

    `sniffed` is what the box recognised in the training file, `mapping` a `jobs.spec.Mapping`, `report` the validation's result,
    `manifest` the written files: `{"train": {"file", "rows", "bytes", "sha256"}, "validation": ..., "test": ...}`.
    """

    class State(models.TextChoices):
        DRAFT = "draft", "Needs mapping"
        VALIDATING = "validating", "Validating"
        READY = "ready", "Ready"
        INVALID = "invalid", "Has problems"

    class Examined(models.TextChoices):
        NO = "", "Not yet"
        WAITING = "waiting", "Waiting"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.DRAFT)
    train_upload = models.ForeignKey(Upload, on_delete=models.PROTECT, related_name="+")
    validation_upload = models.ForeignKey(Upload, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    test_upload = models.ForeignKey(Upload, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    sniffed = models.JSONField(default=dict)
    mapping = models.JSONField(null=True, blank=True)
    skip_bad_rows = models.BooleanField(default=False)
    validation_share = models.FloatField(default=0.05)
    test_share = models.FloatField(default=0.0)
    seed = models.PositiveIntegerField(default=0)
    report = models.JSONField(default=dict)
    manifest = models.JSONField(default=dict)
    sha256 = models.CharField(max_length=64, blank=True)
    message = models.TextField(blank=True)
    progress = models.JSONField(default=dict)
    examined = models.CharField(max_length=8, choices=Examined.choices, default=Examined.NO, blank=True)
    examination = models.JSONField(default=dict)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["dataset", "number"], name="version_number_unique_in_dataset")]

    def __str__(self) -> str:
        return f"{self.dataset.name}@{self.number}"

    @property
    def folder(self) -> Path:
        """Where the version's files are."""
        return Path(settings.GRAFT_VAR) / "datasets" / str(self.id)

    @property
    def check_folder(self) -> Path:
        """Where lists that are too long for the row are: every problem, places of rows, pairs of copies."""
        return Path(settings.GRAFT_VAR) / "checks" / str(self.id)

    @property
    def blocking(self) -> dict[str, str] | None:
        """Why nothing would be learned from it: `code`, `message` and `remedy`; None where something would."""
        found: dict[str, str] | None = self.report.get("blocking")
        return found

    def rows(self, split: str) -> int:
        """How many rows a split holds, 0 where it is absent."""
        return int((self.manifest.get(split) or {}).get("rows", 0))
