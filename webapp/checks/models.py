"""How long the rows of a dataset version are in the tokens of a base model."""

from __future__ import annotations

import uuid

from django.db import models

from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion


class Survey(models.Model):
    """The lengths of a version's training rows for one base model: both never change, so neither does the answer.

    `result` is that of `jobs.data.token_lengths`; `progress` as in `DatasetVersion`.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="surveys")
    base_model = models.ForeignKey(BaseModel, on_delete=models.CASCADE, related_name="surveys")
    loss_on = models.CharField(max_length=16, default="completion")
    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    progress = models.JSONField(default=dict)
    result = models.JSONField(default=dict)
    message = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "base_model", "loss_on"], name="survey_unique")]

    def __str__(self) -> str:
        return f"{self.version} for {self.base_model}"
