"""What the API says of a job: of one that still waits for its files, and of every training, those launched on the pages too."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.urls import reverse
from django.utils import timezone

from jobs.errors import GraftError
from jobs.spec import RunSpec
from webapp.accounts.models import Team
from webapp.api.jobs_schemas import Estimated, GraftFacts, JobError, JobObject, MethodObject, Status, Supervised
from webapp.api.models import Job
from webapp.api.naming import name_of_base, name_of_run
from webapp.api.services.hyperparameters import shown, shown_of_wanted
from webapp.files.models import File
from webapp.files.services.results import results_file
from webapp.notices.words import site_url
from webapp.runs.models import Run
from webapp.runs.services.estimating import takes
from webapp.runs.states import TERMINAL, State

log = logging.getLogger(__name__)
_STATUSES: dict[State, Status] = {
    State.QUEUED: "queued",
    State.INTERRUPTED: "queued",
    State.PAUSED: "paused",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


@dataclass(frozen=True)
class Tuning:
    """A job or a run, or both: one of them is there. They have the same id."""

    job: Job | None
    run: Run | None

    @property
    def pk(self) -> UUID:
        """The id of both."""
        found = self.run or self.job
        assert found is not None  # noqa: S101
        return found.pk

    @property
    def id(self) -> str:
        """As the API says it."""
        return f"ftjob-{self.pk.hex}"

    @property
    def team(self) -> Team:
        """Whose it is."""
        found = self.run or self.job
        assert found is not None  # noqa: S101
        return found.team

    @property
    def created_at(self) -> datetime:
        """When it was asked for, by which lists are in order."""
        found = self.job or self.run
        assert found is not None  # noqa: S101
        return found.created_at

    @property
    def status(self) -> Status:
        """In OpenAI's words, and `paused`."""
        if self.run is not None:
            return _STATUSES.get(State(self.run.state), "running")
        assert self.job is not None  # noqa: S101
        if self.job.ended_at is None:
            return "validating_files"
        return "failed" if self.job.error else "cancelled"


def job_object(tuning: Tuning, *, whole: bool = True) -> JobObject:
    """The job as the API says it; with `whole` also what takes a moment to find out: the estimate, and the file of results."""
    job, run = tuning.job, tuning.run
    hyperparameters = _hyperparameters(job, run)
    results = results_file(run) if whole and run is not None else None
    base = run.base_model if run else job.base_model  # type: ignore[union-attr]
    return JobObject(
        id=tuning.id,
        created_at=_seconds(tuning.created_at) or 0,
        finished_at=_seconds(run.finished_at if run else job.ended_at),  # type: ignore[union-attr]
        estimated_finish=_estimated_finish(run),
        model=name_of_base(base),
        fine_tuned_model=name_of_run(run) if run is not None and run.state == State.SUCCEEDED else None,
        organization_id=tuning.team.slug,
        status=tuning.status,
        hyperparameters=hyperparameters,
        method=MethodObject(supervised=Supervised(hyperparameters=hyperparameters)),
        training_file=_training_file(job, run),
        validation_file=f"file-{job.validation_file_id.hex}" if job and job.validation_file_id else None,
        result_files=[f"file-{results.pk.hex}"] if results else [],
        trained_tokens=_latest(run, "tokens") if run is not None and run.state in TERMINAL else None,
        seed=job.seed if job else int(run.spec.get("seed", 0)),  # type: ignore[union-attr]
        integrations=[],
        metadata=job.metadata if job else None,
        error=_error(job, run),
        graft=_facts(tuning, whole=whole),
    )


def _facts(tuning: Tuning, *, whole: bool) -> GraftFacts:
    job, run = tuning.job, tuning.run
    if run is None:
        assert job is not None  # noqa: S101
        return GraftFacts(
            run=None, url=None, method=job.hyperparameters["method"], attempt=0, step=0, total_steps=0, train_loss=None, valid_loss=None,
            peak_memory_bytes=None, trainable_parameters=None, total_parameters=None, artifacts=None,
        )  # fmt: skip
    plan = run.summary.get("plan") or {}
    return GraftFacts(
        run=str(run.pk),
        url=site_url(reverse("runs:detail", args=[run.pk])),
        method=run.method,
        attempt=run.attempt,
        step=run.last_step,
        total_steps=run.total_steps,
        train_loss=run.train_loss,
        valid_loss=run.eval_loss,
        peak_memory_bytes=run.peak_memory_bytes,
        trainable_parameters=plan.get("trainable_parameters"),
        total_parameters=plan.get("total_parameters"),
        estimate=_estimate(run) if whole and run.state not in TERMINAL else None,
        artifacts=site_url(f"/v1/artifacts?run={run.pk}"),
    )


def _estimate(run: Run) -> Estimated | None:
    """None where there is no worker to estimate for, or the base's files are not there to read."""
    try:
        found = takes(run.team, RunSpec.from_json(run.spec), dataset_version=run.dataset_version, base_model=run.base_model)
    except (GraftError, OSError):
        return None
    return Estimated(
        memory_bytes=found.found.memory.peak,
        fits=found.found.fits,
        seconds_low=found.low,
        seconds_high=found.high,
        steps=found.found.steps,
        disk_bytes=found.disk,
    )


def _hyperparameters(job: Job | None, run: Run | None) -> dict[str, Any]:
    if run is not None:
        return shown(RunSpec.from_json(run.spec))
    assert job is not None  # noqa: S101
    return shown_of_wanted(job.hyperparameters)


def _training_file(job: Job | None, run: Run | None) -> str:
    """The file of the job; of a run from the pages the file that its rows came by, else the dataset's version as a whole."""
    if job is not None:
        return f"file-{job.training_file_id.hex}"
    assert run is not None  # noqa: S101
    file = File.objects.filter(dataset_version=run.dataset_version_id).only("pk").first()
    return f"file-{file.pk.hex}" if file else f"dataset-{run.dataset_version.dataset_id.hex}"


def _error(job: Job | None, run: Run | None) -> JobError | None:
    if run is not None and run.state == State.FAILED:
        return JobError(code=run.failure_code or "internal", message=f"{run.message} {run.remedy}".strip(), param=None)
    return JobError(**job.error) if run is None and job is not None and job.error else None


def _estimated_finish(run: Run | None) -> int | None:
    left = _latest(run, "eta_seconds")
    return int(timezone.now().timestamp() + left) if run is not None and run.state == State.RUNNING and left is not None else None


def _latest(run: Run | None, name: str) -> Any:
    return (run.summary.get("latest") or {}).get(name) if run is not None else None


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None
