"""The jobs of a team: those of the API, and every training that was launched on the pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet, TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import Http404

from webapp.accounts.access import Person, require, visible_to
from webapp.accounts.models import Team
from webapp.api.errors import ApiError
from webapp.api.ids import no_such, parse
from webapp.api.job_object import Tuning
from webapp.api.models import Job
from webapp.api.paging import beyond, unknown_after
from webapp.runs.access import visible_runs
from webapp.runs.kinds import Kind
from webapp.runs.models import Run

Filter = Mapping[str, str] | None


def jobs_of(user: Person, team: Team) -> QuerySet[Job]:
    """The jobs that were made by the API."""
    rows = Job.objects.select_related("team", "base_model", "training_file", "validation_file")
    return visible_to(user, rows.filter(team=team))


def trainings_of(user: Person, team: Team) -> QuerySet[Run]:
    """The trainings that were launched on the pages."""
    return _with_parts(visible_runs(user).filter(team=team, kind=Kind.TRAIN, job=None))


def get_tuning(user: Person, team: Team, job_id: str, action: str = "view") -> Tuning:
    """The job, if the person may do `action` with it. Raises `ApiError` 404 for a stranger, `PermissionDenied` for a lesser role."""
    key = parse("ftjob-", job_id)
    found = _found(user, team, key)
    if found is None:
        raise no_such("ftjob-", job_id)
    try:
        require(user, team, action)
    except Http404:
        raise no_such("ftjob-", job_id) from None
    return found


def page_of_jobs(user: Person, team: Team, after: str | None, limit: int, metadata: Filter, *, unmarked: bool) -> tuple[list[Tuning], bool]:
    """At most `limit` jobs, the newest first, and whether there are more.

    `metadata`: those whose metadata have these values; `unmarked`: those that have none. Raises `ApiError` 400 for an unknown `after`.
    """
    jobs, runs = jobs_of(user, team), trainings_of(user, team)
    for number, (name, value) in enumerate((metadata or {}).items()):
        text = Cast(KeyTextTransform(name, "metadata"), TextField())
        jobs = jobs.alias(**{f"value{number}": text}).filter(**{f"value{number}": value})
    if metadata:
        runs = runs.none()
    if unmarked:
        jobs = jobs.filter(metadata__isnull=True)
    if after:
        last = _last(user, team, after)
        jobs, runs = beyond(jobs, last, "desc"), beyond(runs, last, "desc")
    order = ("-created_at", "-pk")
    asked = list(jobs.select_related("run__base_model", "run__team", "run__dataset_version__dataset").order_by(*order)[: limit + 1])
    found = [Tuning(job, job.run) for job in asked] + [Tuning(None, run) for run in runs.order_by(*order)[: limit + 1]]
    found.sort(key=lambda tuning: (tuning.created_at, tuning.pk.hex), reverse=True)
    return found[:limit], len(found) > limit


def _last(user: Person, team: Team, after: str) -> Any:
    try:
        return get_tuning(user, team, after)
    except ApiError:
        raise unknown_after(after) from None


def _found(user: Person, team: Team, key: UUID) -> Tuning | None:
    job = jobs_of(user, team).filter(pk=key).first()
    run = _with_parts(visible_runs(user).filter(Q(job=None) | Q(job__team=team), pk=key, team=team, kind=Kind.TRAIN)).first()
    return Tuning(job, run) if job or run else None


def _with_parts(runs: QuerySet[Run]) -> QuerySet[Run]:
    return runs.select_related("team", "base_model", "created_by", "dataset_version__dataset")
