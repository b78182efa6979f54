"""Base models: where they came from, pinned to a revision, and what their config says."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from jobs.tasks.registry import get_task
from webapp.accounts.models import Team, User


class BaseModel(models.Model):
    """A model that runs start from. Without a team it belongs to the site and every team may use it.

    `facts` is what the box read of its config and safetensors headers: `architecture parameters context_length vocabulary dtype
    chat_template has_biases tasks files`. `description` is what else its page tells (`services.describe`), of the edition `described`;
    0 where it has not been looked at. `origin` says where its files are taken from, by source:

    - folder: `path`, below one of the allowed folders; `left_out`, names of files that were not taken.
    - upload: `files`, the names as they came.
    - run: `run`, `run_name`, `artifact`, `artifact_name`, `base`, `base_name`; `zip` (below GRAFT_VAR) and `members`, where they lie in it.
    """

    class Source(models.TextChoices):
        SAMPLE = "sample", _("Sample")
        HUB = "hub", _("Hugging Face Hub")
        FOLDER = "folder", _("Folder of the host")
        UPLOAD = "upload", _("Upload")
        RUN = "run", _("Run")

    class State(models.TextChoices):
        FETCHING = "fetching", _("Being added")
        READY = "ready", _("Ready")
        FAILED = "failed", _("Failed")

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
    description = models.JSONField(default=dict)
    described = models.PositiveSmallIntegerField(default=0)
    origin = models.JSONField(default=dict)
    archived_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name

    @property
    def task_names(self) -> list[str]:
        """What the model can be trained for, in words; empty until it is described."""
        return [get_task(task).name for task in self.facts.get("tasks", ())]

    @property
    def folder(self) -> Path:
        """Where the model's files are."""
        return Path(settings.GRAFT_VAR) / "models" / str(self.id)
