"""Base models: where they came from, pinned to a revision, and what their config says."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models

from jobs.tasks.registry import get_task
from webapp.accounts.models import Team, User


class BaseModel(models.Model):
    """A model that runs start from. Without a team it belongs to the site and every team may use it.

    `facts` is what the box read of its config and safetensors headers: `architecture parameters context_length vocabulary dtype
    chat_template has_biases tasks files`.
    """

    class Source(models.TextChoices):
        SAMPLE = "sample", "Sample"
        HUB = "hub", "Hugging Face Hub"

    class State(models.TextChoices):
        FETCHING = "fetching", "Downloading"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.CASCADE, related_name="base_models")
    name = models.CharField(max_length=200)
    source = models.CharField(max_length=16, choices=Source.choices)
    repository = models.CharField(max_length=200, blank=True)
    revision = models.CharField(max_length=64, blank=True)
    licence = models.CharField(max_length=80, blank=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.FETCHING)
    message = models.TextField(blank=True)
    progress = models.JSONField(default=dict)
    facts = models.JSONField(default=dict)
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name

    @property
    def task_names(self) -> list[str]:
        """What the model can be trained for, in words; empty where its facts do not say it."""
        return [get_task(task).name for task in self.facts.get("tasks", ())]

    @property
    def folder(self) -> Path:
        """Where the model's files are."""
        return Path(settings.GRAFT_VAR) / "models" / str(self.id)
