"""Use case: a fine-tuning job. Its run is made at once where the files are validated, else as soon as they are (`settle`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from uuid import uuid4

from django.db import transaction
from django.utils import timezone

from jobs.errors import UserError
from webapp.accounts.models import Team, User
from webapp.api.errors import ApiError, as_api_error
from webapp.api.models import Job
from webapp.api.services.announce_end import announce_end
from webapp.api.services.hyperparameters import Wanted
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.create_dataset import create_dataset
from webapp.datasets.services.start_validation import Choices, start_validation
from webapp.files.models import File, Purpose, words_of
from webapp.files.services.store import chosen_mapping
from webapp.runs.services.create import create_run
from webapp.runs.services.specs import Recipe
from webapp.runs.states import State

_NAME_LENGTH = 90


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a job is made of."""

    base_model: BaseModel
    training_file: File
    validation_file: File | None = None
    wanted: Wanted = field(default_factory=Wanted)
    suffix: str = ""
    seed: int = 0
    metadata: Mapping[str, str] | None = None


def create_job(asked: Asked, *, team: Team, user: User) -> Job:
    """A job of the team. Raises `ApiError` 400 that names the field at fault; then nothing is written, but for a dataset of both files."""
    _check_file(asked.training_file, "training_file")
    if asked.validation_file is not None:
        _check_file(asked.validation_file, "validation_file")
    version = _version(asked, team, user)
    with transaction.atomic():
        job = Job.objects.create(
            team=team,
            created_by=user,
            base_model=asked.base_model,
            training_file=asked.training_file,
            validation_file=asked.validation_file,
            dataset_version=version,
            suffix=asked.suffix,
            seed=asked.seed,
            metadata=dict(asked.metadata) if asked.metadata else None,
            hyperparameters=asked.wanted.to_json(),
        )
        if version.state == DatasetVersion.State.READY:
            try:
                _make_run(job, version)
            except UserError as error:
                raise as_api_error(error) from None
    return job


def settle(job: Job) -> None:
    """Makes the run of a job whose files have been validated, or ends it with what is wrong. While they are not, nothing happens."""
    with transaction.atomic():
        # Of several dispatchers one does it: the row is locked by this UPDATE.
        if Job.objects.filter(pk=job.pk, run=None, ended_at=None).update(seed=job.seed) != 1:
            return
        version = job.dataset_version
        if version is None:
            _end(job, "dataset_gone", "The rows of the file were deleted before the job began.", "training_file")
        elif version.state in (DatasetVersion.State.INVALID, DatasetVersion.State.DRAFT):
            _end(job, "invalid_training_file", words_of(version), "training_file")
        elif version.state == DatasetVersion.State.READY:
            try:
                _make_run(job, version)
            except UserError as error:
                said = as_api_error(error)
                _end(job, said.code or "invalid_value", said.message, said.param)


def cancel_waiting(job: Job) -> bool:
    """Cancels a job that has no run yet. Says whether it was so."""
    now = timezone.now()
    with transaction.atomic():
        if Job.objects.filter(pk=job.pk, run=None, ended_at=None).update(ended_at=now, cancelled_at=now) != 1:
            return False
        announce_end(job, State.CANCELLED)
    return True


def _make_run(job: Job, version: DatasetVersion) -> None:
    wanted = Wanted(**job.hyperparameters)
    recipe = Recipe(
        name=f"{version.dataset.name}-{job.suffix or wanted.method}",
        dataset_version=version,
        base_model=job.base_model,
        method=wanted.method,
        settings=wanted.settings,
        training=wanted.training,
        evaluation=wanted.evaluation,
        export=wanted.export,
        seed=job.seed,
    )
    with transaction.atomic():
        job.run = create_run(recipe, team=job.team, user=job.created_by, run_id=job.pk)
        job.save(update_fields=["run"])


def _end(job: Job, code: str, message: str, param: str | None) -> None:
    error = {"code": code, "message": message, "param": param}
    Job.objects.filter(pk=job.pk).update(error=error, ended_at=timezone.now())
    announce_end(job, State.FAILED, code=code, message=message)


def _check_file(file: File, param: str) -> None:
    if file.purpose != Purpose.FINE_TUNE or file.dataset_version is None:
        words = f"The file '{file.filename}' has the purpose '{file.purpose}'. Send it with the purpose 'fine-tune'."
        raise ApiError(400, words, code="invalid_file_purpose", param=param)
    if file.status == File.Status.ERROR:
        code = "invalid_training_file" if param == "training_file" else "invalid_validation_file"
        raise ApiError(400, f"The file '{file.filename}' cannot be used: {file.status_details}", code=code, param=param)


def _version(asked: Asked, team: Team, user: User) -> DatasetVersion:
    """The rows: those of the training file; with a validation file those of both, in a dataset that jobs with the same files share."""
    training, validation = asked.training_file, asked.validation_file
    assert training.dataset_version is not None and training.upload is not None  # noqa: S101, PT018 - asked by `_check_file`
    if validation is None:
        return training.dataset_version
    assert validation.upload is not None  # noqa: S101
    known = Job.objects.filter(team=team, training_file=training, validation_file=validation, dataset_version__isnull=False)
    for job in known.select_related("dataset_version__dataset").order_by("-created_at")[:1]:
        if job.dataset_version is not None and job.dataset_version.state in (DatasetVersion.State.READY, DatasetVersion.State.VALIDATING):
            return job.dataset_version
    name = f"{PurePath(training.filename).stem} + {PurePath(validation.filename).stem}"[:_NAME_LENGTH]
    uploads = {"train": training.upload.pk, "validation": validation.upload.pk}
    version = create_dataset(team=team, user=user, name=f"{name} {uuid4().hex[:8]}", uploads=uploads)
    mapping = chosen_mapping(version)
    if mapping is None:
        raise ApiError(400, words_of(version), code="invalid_training_file", param="training_file")
    start_validation(version, Choices(mapping=mapping, validation_share=0.0))
    return version
