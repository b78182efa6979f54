"""`/v1/fine_tuning/jobs`: make, list, watch, pause, resume and cancel fine-tuning jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import Http404, HttpRequest
from ninja import Query, Router, Schema
from pydantic import Field

from webapp.accounts.access import require
from webapp.accounts.scopes import Scope
from webapp.api.auth import Caller, needs
from webapp.api.checkpoints import checkpoints_of
from webapp.api.errors import ApiError
from webapp.api.ids import parse
from webapp.api.job_object import Tuning, job_object
from webapp.api.jobs_list import get_tuning, page_of_jobs
from webapp.api.jobs_schemas import CheckpointList, EventList, EventObject, JobAsked, JobList, JobObject
from webapp.api.naming import find
from webapp.api.services.create_job import Asked, cancel_waiting, create_job
from webapp.api.services.events import events_of
from webapp.api.services.hyperparameters import Wanted, read
from webapp.api.services.idempotency import once
from webapp.api.text import NUL
from webapp.files.access import get_file
from webapp.files.models import File
from webapp.runs.models import Run
from webapp.runs.services.cancel import cancel as cancel_run
from webapp.runs.services.pause import pause as pause_run
from webapp.runs.services.resume import resume as resume_run

router = Router(tags=["Fine-tuning"])
# Key of the metadata filter in a query: `metadata[team]=x`.
_OPEN, _CLOSE = "metadata[", "]"


class JobsQuery(Schema):
    """Which page of jobs. `metadata[key]=value` takes those with that value, `metadata=null` those without metadata."""

    after: str | None = None
    limit: int = Field(20, ge=1, le=100)
    metadata: str | None = None


class EventsQuery(Schema):
    """Which page of events."""

    after: str | None = None
    limit: int = Field(20, ge=1, le=1000)


class CheckpointsQuery(Schema):
    """Which page of checkpoints."""

    after: str | None = None
    limit: int = Field(10, ge=1, le=100)


@router.post("/fine_tuning/jobs", auth=needs(Scope.RUNS_WRITE), response=JobObject, operation_id="createFineTuningJob")
def create(request: HttpRequest, asked: JobAsked) -> Any:
    """Makes a job. It waits until its files are validated (`validating_files`), then for a worker (`queued`)."""
    caller: Caller = request.auth  # type: ignore[attr-defined]
    require(caller.user, caller.team, "launch")
    return once(request, lambda: _created(caller, asked))


def _created(caller: Caller, asked: JobAsked) -> JobObject:
    if asked.integrations:
        raise ApiError(400, "This server has no integrations. Leave 'integrations' out.", code="unsupported_value", param="integrations")
    named = find(caller.user, caller.team, asked.model)
    if named.run is not None:
        words = f"'{asked.model[:200]}' is a tuned model. Start from its base model, '{named.base.repository or named.base.name}'."
        raise ApiError(400, words, code="unsupported_value", param="model")
    what = Asked(
        base_model=named.base,
        training_file=_file(caller, asked.training_file, "training_file"),
        validation_file=_file(caller, asked.validation_file, "validation_file") if asked.validation_file else None,
        wanted=_wanted(asked),
        suffix=asked.suffix or "",
        seed=asked.seed or 0,
        metadata=asked.metadata,
    )
    job = create_job(what, team=caller.team, user=caller.user)
    return job_object(get_tuning(caller.user, caller.team, f"ftjob-{job.pk.hex}"))


@router.get("/fine_tuning/jobs", auth=needs(Scope.RUNS_READ), response=JobList, operation_id="listFineTuningJobs")
def list_jobs(request: HttpRequest, query: Query[JobsQuery]) -> Any:
    """The team's jobs, the newest first; every training that was launched on the pages is one of them."""
    caller: Caller = request.auth  # type: ignore[attr-defined]
    if query.metadata not in (None, "null"):
        raise ApiError(400, "Write metadata[key]=value, or metadata=null.", code="invalid_value", param="metadata")
    names = [name for name in request.GET if name.startswith(_OPEN) and name.endswith(_CLOSE)]
    wanted = {name[len(_OPEN) : -len(_CLOSE)]: request.GET[name] for name in names[:16]}
    if any(NUL in word for pair in wanted.items() for word in pair):
        raise ApiError(400, "A filter of metadata holds the character U+0000.", code="invalid_value", param="metadata")
    found, more = page_of_jobs(caller.user, caller.team, query.after, query.limit, wanted, unmarked=query.metadata == "null")
    data = [job_object(tuning, whole=False) for tuning in found]
    return JobList(data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more)


@router.get("/fine_tuning/jobs/{job_id}", auth=needs(Scope.RUNS_READ), response=JobObject, operation_id="retrieveFineTuningJob")
def retrieve(request: HttpRequest, job_id: str) -> JobObject:
    """One job."""
    return job_object(_tuning(request, job_id))


@router.post("/fine_tuning/jobs/{job_id}/cancel", auth=needs(Scope.RUNS_WRITE), response=JobObject, operation_id="cancelFineTuningJob")
def cancel(request: HttpRequest, job_id: str) -> JobObject:
    """Cancels a job; one that trains is `running` until its process has ended."""
    tuning = _tuning(request, job_id, "control")
    if tuning.run is None and tuning.job is not None and cancel_waiting(tuning.job):
        return job_object(_tuning(request, job_id))
    return _moved(request, tuning, cancel_run)


@router.post("/fine_tuning/jobs/{job_id}/pause", auth=needs(Scope.RUNS_WRITE), response=JobObject, operation_id="pauseFineTuningJob")
def pause(request: HttpRequest, job_id: str) -> JobObject:
    """Pauses a job: it writes a checkpoint and gives its device back."""
    return _moved(request, _tuning(request, job_id, "control"), pause_run)


@router.post("/fine_tuning/jobs/{job_id}/resume", auth=needs(Scope.RUNS_WRITE), response=JobObject, operation_id="resumeFineTuningJob")
def resume(request: HttpRequest, job_id: str) -> JobObject:
    """Resumes a paused job from its last checkpoint."""
    return _moved(request, _tuning(request, job_id, "control"), resume_run)


@router.get("/fine_tuning/jobs/{job_id}/events", auth=needs(Scope.RUNS_READ), response=EventList, operation_id="listFineTuningEvents")
def events(request: HttpRequest, job_id: str, query: Query[EventsQuery]) -> EventList:
    """What happened to the job and what its training said, the newest first."""
    tuning = _tuning(request, job_id)
    found, more = events_of(tuning.job, tuning.run, tuning.pk.hex, query.after, query.limit)
    data = [
        EventObject(id=each.id, created_at=int(each.at), level=each.level, message=each.message, type=each.type, data=each.data)
        for each in found
    ]
    return EventList(data=data, has_more=more)


@router.get(
    "/fine_tuning/jobs/{job_id}/checkpoints",
    auth=needs(Scope.RUNS_READ),
    response=CheckpointList,
    operation_id="listFineTuningJobCheckpoints",
)
def checkpoints(request: HttpRequest, job_id: str, query: Query[CheckpointsQuery]) -> CheckpointList:
    """The checkpoints of the job, the newest first."""
    run = _tuning(request, job_id).run
    data, more = checkpoints_of(run, query.after, query.limit) if run is not None else ([], False)
    return CheckpointList(data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more)


def _tuning(request: HttpRequest, job_id: str, action: str = "view") -> Tuning:
    caller: Caller = request.auth  # type: ignore[attr-defined]
    return get_tuning(caller.user, caller.team, job_id, action)


def _moved(request: HttpRequest, tuning: Tuning, move: Callable[..., Run]) -> JobObject:
    """The job after its run was moved by one of the pages' services. Raises `ApiError` 400 where it has none."""
    if tuning.run is None:
        state = tuning.status.replace("_", " ")
        raise ApiError(400, f"The job is {state}; this is not possible then.", code="run_state")
    move(tuning.run, actor=request.auth.user.username)  # type: ignore[attr-defined]
    return job_object(_tuning(request, tuning.id))


def _file(caller: Caller, file_id: str, param: str) -> File:
    try:
        return get_file(caller.user, caller.team, parse("file-", file_id))
    except (ApiError, Http404):
        raise ApiError(400, f"No such File object: {file_id[:100]}", code="invalid_file_id", param=param) from None


def _wanted(asked: JobAsked) -> Wanted:
    """What `method`, or the older `hyperparameters` beside it, say. Raises `ApiError` 400."""
    method = asked.method
    if method is not None and method.type != "supervised":
        words = f"The method '{method.type}' is not supported: this server trains 'supervised' jobs."
        if method.type == "dpo":
            words += " Preferences (dpo) need rows with both answers, which the engine does not train on yet."
        raise ApiError(400, words, code="unsupported_method", param="method.type")
    if method is not None and method.supervised is not None and method.supervised.hyperparameters is not None:
        if asked.hyperparameters:
            raise ApiError(400, "Give hyperparameters in 'method' or beside it, not both.", code="invalid_value", param="hyperparameters")
        return read(method.supervised.hyperparameters, "method.supervised.hyperparameters")
    return read(asked.hyperparameters or {}, "hyperparameters")
