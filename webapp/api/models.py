"""Jobs of the API, and answers that are kept for requests which may be sent twice."""

from __future__ import annotations

import uuid

from django.db import models

from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.files.models import File
from webapp.runs.models import Run

SUFFIX_LENGTH = 64


class Job(models.Model):
    """A fine-tuning job as it was asked for. Its run has the job's own id, and is there once the files are validated.

    `hyperparameters` is what `services.hyperparameters.Wanted` holds; `error` what kept the run from being made: `{code, message, param}`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="jobs")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    run = models.OneToOneField(Run, null=True, blank=True, on_delete=models.CASCADE, related_name="job")
    base_model = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="+")
    training_file = models.ForeignKey(File, on_delete=models.PROTECT, related_name="+")
    validation_file = models.ForeignKey(File, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    # The rows of both files; None where the version was deleted while the job waited for it.
    dataset_version = models.ForeignKey(DatasetVersion, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    suffix = models.CharField(max_length=SUFFIX_LENGTH, blank=True)
    seed = models.PositiveIntegerField(default=0)
    metadata = models.JSONField(null=True, blank=True)
    hyperparameters = models.JSONField(default=dict)
    error = models.JSONField(null=True, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["team", "-created_at"], name="job_team_created")]

    def __str__(self) -> str:
        return f"ftjob-{self.pk.hex}"

    @property
    def waits(self) -> bool:
        """Whether its files are still being validated."""
        return self.run_id is None and self.ended_at is None


class KeptAnswer(models.Model):
    """The answer to a request that named an `Idempotency-Key`; without `status` while the request is being worked on."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    # SHA-256 of method, path and body.
    request = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    body = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "key"], name="one_answer_for_a_key")]
        indexes = [models.Index(fields=["created_at"], name="kept_answer_age")]

    def __str__(self) -> str:
        return self.key
