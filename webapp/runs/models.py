"""Runs, their history, the archive of their events, what they leave behind, and the workers."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.kinds import RESUMABLE, Kind
from webapp.runs.priorities import Priority
from webapp.runs.states import ACTIVE, TERMINAL, Desired, State


class Experiment(models.Model):
    """Runs that were launched together to be compared: one dataset version and one base model over several methods, ranks, rates or seeds.

    `axes` is what varies (`runs.experiments.cells`), `spec` what all runs have in common, the parameters of `services.create` but for those
    of a cell. `submit_token` is that of the form: the same form sent twice makes one experiment.
    """

    class Kind(models.TextChoices):
        GRID = "grid", _("Grid")
        LIST = "list", _("List")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="experiments")
    name = models.CharField(max_length=120)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.GRID)
    axes = models.JSONField(default=dict)
    spec = models.JSONField(default=dict)
    note = models.TextField(blank=True)
    submit_token = models.UUIDField(default=uuid.uuid4, editable=False)

    class Meta:
        indexes = [models.Index(fields=["team", "-created_at"], name="experiment_team_created")]
        constraints = [models.UniqueConstraint(fields=["team", "submit_token"], name="experiment_token_unique_in_team")]

    def __str__(self) -> str:
        return self.name


class Run(models.Model):
    """One job of the engine. `attempt` is the fencing token: every write of a worker names it, and a stale one changes nothing.

    `spec` is the resolved spec of its kind (without paths of this host: `services.handed` fills them in for the worker); `summary` is
    folded from the events (`runs.fold`), so that lists need no archive.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="runs")
    name = models.CharField(max_length=120)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    dataset_version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="runs")
    base_model = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="runs")
    experiment = models.ForeignKey(Experiment, null=True, blank=True, on_delete=models.SET_NULL, related_name="runs")
    kind = models.CharField(max_length=16, choices=Kind.choices, default=Kind.TRAIN)
    method = models.CharField(max_length=40)
    spec = models.JSONField()

    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    desired = models.CharField(max_length=8, choices=Desired.choices, default=Desired.RUN)
    attempt = models.PositiveIntegerField(default=0)
    owner = models.CharField(max_length=120, blank=True)
    lease_expires_at = models.DateTimeField()
    queue = models.CharField(max_length=40, default="train")
    # Its turn in the queue (`runs.order`): `place` is that among the waiting runs of its team, 0 until somebody has put them in order.
    priority = models.SmallIntegerField(choices=Priority.choices, default=Priority.NORMAL)
    place = models.BigIntegerField(default=0)
    infra_failures = models.PositiveIntegerField(default=0)
    # How often its micro-batch was halved because it ran out of memory (`runs.memory`).
    memory_cuts = models.PositiveSmallIntegerField(default=0)

    last_step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(default=0)
    last_checkpoint_step = models.PositiveIntegerField(default=0)
    # What its checkpoints take on the disk, measured whenever one was written.
    checkpoint_bytes = models.BigIntegerField(default=0)
    summary = models.JSONField(default=dict)
    # What lists sort and filter by: figures of the summary (`runs.listed`) and the time from the first start to the end or the last word.
    train_loss = models.FloatField(null=True, blank=True)
    eval_loss = models.FloatField(null=True, blank=True)
    accuracy = models.FloatField(null=True, blank=True)
    peak_memory_bytes = models.BigIntegerField(null=True, blank=True)
    duration = models.DurationField(null=True, blank=True)
    archived_at = models.DateTimeField(null=True, blank=True)

    failure_code = models.CharField(max_length=40, blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    message = models.TextField(blank=True)
    remedy = models.TextField(blank=True)

    queued_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)
    code_version = models.CharField(max_length=40, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["team", "-created_at"], name="run_team_created"),
            models.Index(fields=["state", "lease_expires_at"], name="run_state_lease"),
            # One for each column that a team's list is sorted and filtered by.
            models.Index(fields=["team", "archived_at", "state"], name="run_team_state"),
            models.Index(fields=["team", "train_loss"], name="run_team_train_loss"),
            models.Index(fields=["team", "eval_loss"], name="run_team_eval_loss"),
            models.Index(fields=["team", "accuracy"], name="run_team_accuracy"),
            models.Index(fields=["team", "peak_memory_bytes"], name="run_team_memory"),
            models.Index(fields=["team", "duration"], name="run_team_duration"),
            models.Index(fields=["team", "last_step"], name="run_team_step"),
            models.Index(fields=["team", "name"], name="run_team_name"),
            models.Index(fields=["team", "method"], name="run_team_method"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        """Where the run's attempts lie, one folder each."""
        return Path(settings.GRAFT_VAR) / "runs" / str(self.id)

    def attempt_folder(self, attempt: int) -> Path:
        """The output folder of one attempt."""
        return self.folder / f"attempt-{attempt}"

    @property
    def is_active(self) -> bool:
        """Whether a worker holds it."""
        return self.state in ACTIVE

    @property
    def is_resumable(self) -> bool:
        """Whether it leaves checkpoints to go on from; else every attempt begins anew."""
        return self.kind in RESUMABLE

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL


class RunDraft(models.Model):
    """A run that somebody is still filling in: `values` are the form's fields by name, as they were typed, `step` where they stand.

    `origin` is what it was begun from (`runs.drafts.Origin`): the words for it and its values, by which changes are told.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="drafts")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="drafts")
    values = models.JSONField(default=dict)
    origin = models.JSONField(default=dict)
    step = models.CharField(max_length=16, default="data")
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        indexes = [
            models.Index(fields=["team", "user", "-changed_at"], name="draft_team_user"),
            models.Index(fields=["changed_at"], name="draft_changed"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class RunPreset(models.Model):
    """Settings that a team keeps by name: `values` are the form's fields of method and training (`runs.presets`)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="presets")
    name = models.CharField(max_length=60)
    values = models.JSONField(default=dict)
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["team", "name"], name="preset_name_unique_in_team")]

    def __str__(self) -> str:
        return self.name


class RunTag(models.Model):
    """A word on a run, for finding it again (`runs.services.tags` says which words)."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="tags")
    name = models.CharField(max_length=40)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="tag_unique_on_run")]
        indexes = [models.Index(fields=["name", "run"], name="tag_name_run")]

    def __str__(self) -> str:
        return self.name


class SavedView(models.Model):
    """A list of runs by name: `state` is the query string of its page (`runs.lists.state`). A shared one is there for the whole team."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="saved_views")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="saved_views")
    name = models.CharField(max_length=60)
    state = models.CharField(max_length=1000, blank=True)
    shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "created_at"]
        constraints = [models.UniqueConstraint(fields=["team", "user", "name"], name="saved_view_name_unique")]

    def __str__(self) -> str:
        return self.name


class RunEvent(models.Model):
    """The history of a run's states: written in the transaction of the move itself."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="history")
    seq = models.PositiveIntegerField()
    from_state = models.CharField(max_length=16, choices=State.choices, blank=True)
    to_state = models.CharField(max_length=16, choices=State.choices)
    actor = models.CharField(max_length=150)
    attempt = models.PositiveIntegerField()
    detail = models.TextField(blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["seq"]
        constraints = [models.UniqueConstraint(fields=["run", "seq"], name="history_seq_unique_in_run")]

    def __str__(self) -> str:
        return f"{self.from_state} -> {self.to_state}"


class Record(models.Model):
    """One engine event in the archive: what `events.jsonl` of an attempt holds."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="records")
    attempt = models.PositiveIntegerField()
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=16)
    step = models.PositiveIntegerField(null=True)
    at = models.FloatField()
    data = models.JSONField()

    class Meta:
        ordering = ["attempt", "seq"]
        constraints = [models.UniqueConstraint(fields=["run", "attempt", "seq"], name="record_unique")]
        indexes = [models.Index(fields=["run", "kind", "attempt", "seq"], name="record_run_kind")]

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq} {self.kind}"


class Artifact(models.Model):
    """A file that a run left behind for download. The row is the publication: without it a file is not there."""

    class Kind(models.TextChoices):
        ADAPTER = "adapter", "Adapter"
        MERGED = "merged", "Merged model"
        MODEL = "model", "Model"
        ANALYSIS = "analysis", "Analysis"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="artifacts")
    attempt = models.PositiveIntegerField()
    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=200)
    path = models.CharField(max_length=400)
    bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    files = models.JSONField(default=list)
    details = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["kind", "name"]
        constraints = [models.UniqueConstraint(fields=["run", "attempt", "name"], name="artifact_unique_in_attempt")]

    def __str__(self) -> str:
        return self.name

    @property
    def file(self) -> Path:
        """The zip on disk; `path` is relative to the attempt's folder. One that leads out of it gives a file that is not there."""
        folder = self.run.attempt_folder(self.attempt).resolve()
        path = (folder / self.path).resolve()
        return path if path.is_relative_to(folder) else folder / "artifacts" / "missing"


class Worker(models.Model):
    """A training worker that has been seen: what it can do, and when it last said so.

    `device` is the answer of `python -m jobs device`: `kind name memory_bytes threads bfloat16`. `vitals` is how it was at the last sign of
    life (`runs.vitals`), `versions` what it runs with, by name. A `draining` worker ends the run that it has and takes no other.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120, unique=True)
    queue = models.CharField(max_length=40)
    device = models.JSONField(default=dict)
    vitals = models.JSONField(default=dict)
    versions = models.JSONField(default=dict)
    draining = models.BooleanField(default=False)
    run = models.ForeignKey(Run, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
