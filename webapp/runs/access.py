"""The only door to runs. A stranger learns nothing, not even that a run exists; a member without the right is told so."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404

from webapp.accounts.access import ACTIONS, can, roles, visible_to
from webapp.accounts.models import User
from webapp.runs.models import Experiment, Run


def visible_runs(user: User | AnonymousUser) -> QuerySet[Run]:
    """The runs of the user's teams."""
    return visible_to(user, Run.objects.all())


def get_run(user: User | AnonymousUser, run_id: UUID, action: str) -> Run:
    """The run, if the user may do `action` (`view`, `launch`, `control`, `manage`) with it.

    Raises `Http404` for a stranger and `PermissionDenied` for a member of the team whose role does not allow it.
    """
    run = visible_runs(user).select_related("team", "created_by", "base_model", "dataset_version__dataset").filter(pk=run_id).first()
    if run is None or not isinstance(user, User):
        raise Http404
    if not can(user, run.team, action):
        raise PermissionDenied
    return run


def runs_in_sight(asked: Iterable[tuple[User, UUID]]) -> dict[tuple[UUID, UUID], Run]:
    """Of people and runs those pairs in which the person may view the run, by the ids of both: `get_run` for many sockets at once."""
    wanted = [(user, run_id) for user, run_id in asked]
    runs = {run.pk: run for run in Run.objects.filter(pk__in={run_id for _, run_id in wanted})}
    held = roles((user for user, _ in wanted), (run.team_id for run in runs.values()))
    pairs = [(user.pk, runs[run_id]) for user, run_id in wanted if run_id in runs]
    return {(pk, run.pk): run for pk, run in pairs if (role := held.get((pk, run.team_id))) is not None and "view" in ACTIONS[role]}


def get_experiment(user: User | AnonymousUser, experiment_id: UUID, action: str) -> Experiment:
    """The experiment, if the user may do `action` with it. Raises as `get_run` does."""
    rows = visible_to(user, Experiment.objects.select_related("team", "created_by"))
    experiment = rows.filter(pk=experiment_id).first()
    if experiment is None:
        raise Http404
    if not can(user, experiment.team, action):
        raise PermissionDenied
    return experiment
