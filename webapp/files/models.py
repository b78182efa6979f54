"""Files of the API, and uploads that come in parts. The bytes of a file lie in a `datasets.Upload`, as those of the pages do."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models

from webapp.accounts.models import Team, User
from webapp.datasets.models import DatasetVersion, Upload
from webapp.runs.models import Run

State = DatasetVersion.State
NAME_LENGTH = 255
# How many problems of a file its status names.
SHOWN_PROBLEMS = 5
# The key by which rows of preferences (dpo) are known.
PREFERENCES = "preferred_output"


class Purpose(models.TextChoices):
    """What a file is for. Callers may send all but the last, which is for what Graft writes itself."""

    ASSISTANTS = "assistants"
    BATCH = "batch"
    FINE_TUNE = "fine-tune"
    VISION = "vision"
    USER_DATA = "user_data"
    EVALS = "evals"
    RESULTS = "fine-tune-results"


SENT = tuple(purpose for purpose in Purpose if purpose != Purpose.RESULTS)


class File(models.Model):
    """One file. A deleted one keeps its row, without bytes: jobs go on naming it.

    `upload` holds the bytes; None once the file is deleted. A file for fine-tuning has a `dataset_version`, which is validated in the
    background and then speaks for the file's status. `results_of` is the run whose curve a file for results holds, as it was after
    `results_attempt`.
    """

    class Status(models.TextChoices):
        UPLOADED = "uploaded"
        PROCESSED = "processed"
        ERROR = "error"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="files")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    filename = models.CharField(max_length=NAME_LENGTH)
    purpose = models.CharField(max_length=24, choices=Purpose.choices)
    bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    upload = models.OneToOneField(Upload, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    dataset_version = models.ForeignKey(DatasetVersion, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    results_of = models.ForeignKey(Run, null=True, blank=True, on_delete=models.SET_NULL, related_name="result_files")
    results_attempt = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["team", "-created_at"], name="file_team_created"),
            models.Index(fields=["expires_at"], name="file_expires"),
        ]
        constraints = [models.UniqueConstraint(fields=["results_of", "results_attempt"], name="results_once_an_attempt")]

    def __str__(self) -> str:
        return self.filename

    @property
    def status(self) -> File.Status:
        """`uploaded` while its rows are being read, then `processed` or `error`. A file that nobody reads is processed at once."""
        if self.purpose != Purpose.FINE_TUNE or self.dataset_version is None:
            return File.Status.PROCESSED
        return _STATUSES[State(self.dataset_version.state)]

    @property
    def status_details(self) -> str | None:
        """What is wrong with a file in `error`: the first problems with their lines. None for any other."""
        if self.status != File.Status.ERROR or self.dataset_version is None:
            return None
        return words_of(self.dataset_version)


class PartedUpload(models.Model):
    """A file that comes in parts (`/v1/uploads`): announced with its size, closed within an hour, then a `File`."""

    class Status(models.TextChoices):
        PENDING = "pending"
        COMPLETED = "completed"
        CANCELLED = "cancelled"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="parted_uploads")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    filename = models.CharField(max_length=NAME_LENGTH)
    purpose = models.CharField(max_length=24, choices=Purpose.choices)
    mime_type = models.CharField(max_length=127)
    bytes = models.BigIntegerField()
    # How long the file is kept once it is whole; None for ever.
    file_expires_seconds = models.PositiveIntegerField(null=True, blank=True)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PENDING)
    file = models.OneToOneField(File, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["status", "expires_at"], name="parted_upload_open")]

    def __str__(self) -> str:
        return self.filename


class Part(models.Model):
    """One part of an upload, in a file of its own until the upload is complete."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    upload = models.ForeignKey(PartedUpload, on_delete=models.CASCADE, related_name="parts")
    bytes = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.id)

    @property
    def path(self) -> Path:
        """Where the bytes are."""
        return Path(settings.GRAFT_VAR) / "uploads" / f"part-{self.id}"


# A draft is a file in which no layout was recognised; somebody may still say on the pages which one it is.
_STATUSES = {
    State.DRAFT: File.Status.ERROR,
    State.VALIDATING: File.Status.UPLOADED,
    State.READY: File.Status.PROCESSED,
    State.INVALID: File.Status.ERROR,
}


def words_of(version: DatasetVersion) -> str:
    """What is wrong with a version that is not ready, in a few sentences."""
    columns = [str(column) for column in version.sniffed.get("facts", {}).get("columns", [])]
    if version.state == State.DRAFT and PREFERENCES in columns:
        return "The rows are preferences (dpo), which this server does not train on. Send rows with 'messages'."
    if version.state == State.DRAFT:
        found = ", ".join(f"'{column}'" for column in columns[:20]) or "none"
        return f"Expected every line to have the key 'messages'; the keys found are: {found}."
    if version.message:
        return version.message
    problems = [one["message"] for one in version.report.get("problems", [])[:SHOWN_PROBLEMS]]
    more = int(version.report.get("bad", 0)) - len(problems)
    return " ".join([*problems, *([f"{more} more rows have problems."] if problems and more > 0 else [])]) or "No row can be used."
