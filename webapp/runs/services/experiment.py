"""Launch an experiment, add to it, stop it, try again: each is done to all of its runs by the services of a single run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _

from jobs.errors import UserError
from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.experiments.cells import LIMIT, Cell, cells_of, identity
from webapp.runs.models import Experiment, Run
from webapp.runs.services import cancel as cancelling
from webapp.runs.services import retry as retrying
from webapp.runs.services.create import NAME_LENGTH, create_run
from webapp.runs.services.specs import Recipe
from webapp.runs.states import TERMINAL, State

# What all runs of an experiment have in common, of the parameters of `create_run`.
SHARED = ("task", "training", "evaluation", "export", "validation_share")


def create_experiment(
    *,
    team: Team,
    user: User,
    name: str,
    note: str,
    token: UUID,
    axes: Mapping[str, Any],
    dataset_version: DatasetVersion,
    base_model: BaseModel,
    shared: Mapping[str, Any],
) -> Experiment:
    """Queues a run for each cell of `axes` (`experiments.cells`), all or none, and gives the experiment.

    `shared` holds `SHARED`. The same `token` makes one experiment, however often it is sent: the second time the first is given.
    Raises `ValueError` for axes that make no cells, or more than `LIMIT`; `UserError` where a run cannot be launched.
    """
    cells = checked(axes)
    spec = {"dataset_version": str(dataset_version.pk), "base_model": str(base_model.pk), **{key: shared[key] for key in SHARED}}
    kind = Experiment.Kind.LIST if "lines" in axes else Experiment.Kind.GRID
    values = {"created_by": user, "name": name, "note": note, "kind": kind, "axes": dict(axes), "spec": spec}
    with transaction.atomic():
        experiment, new = Experiment.objects.get_or_create(team=team, submit_token=token, defaults=values)
        if new:
            _launch(experiment, cells, user, dataset_version, base_model)
    return experiment


def checked(axes: Mapping[str, Any]) -> list[Cell]:
    """The cells of `axes`. Raises `ValueError`, in words for the reader, where there are none, or more than `LIMIT`."""
    cells = cells_of(axes)
    if not cells:
        raise ValueError(_("There is nothing to launch: choose a method, or write a line."))
    if len(cells) > LIMIT:
        raise ValueError(_("These are %(count)s runs; one form launches at most %(limit)s.") % {"count": len(cells), "limit": LIMIT})
    return cells


def add_cells(experiment: Experiment, *, user: User, axes: Mapping[str, Any]) -> list[Run]:
    """Queues the cells of `axes` that the experiment has no run of yet, all or none, and gives the new runs.

    Raises `ValueError` and `UserError` as `create_experiment` does.
    """
    cells = checked(axes)
    with transaction.atomic():
        # The row is locked, so that the same form sent twice adds its cells once.
        held = Experiment.objects.select_for_update().get(pk=experiment.pk)
        there = {identity_of(run) for run in held.runs.only("method", "spec")}
        version = DatasetVersion.objects.select_related("dataset").filter(pk=held.spec["dataset_version"]).first()
        base = BaseModel.objects.filter(pk=held.spec["base_model"]).first()
        if version is None:
            raise UserError("dataset_not_ready", name=held.name)
        if base is None:
            raise UserError("model_not_ready", name=held.name)
        new = [cell for cell in cells if cell.identity() not in there]
        held.axes = {**held.axes, "added": [*held.axes.get("added", []), dict(axes)]}
        held.save(update_fields=["axes"])
        return _launch(held, new, user, version, base)


def identity_of(run: Run) -> tuple[str, str, float, int]:
    """A run's place in its experiment: that of the cell which made it (`Cell.identity`)."""
    given = run.spec["training"]["learning_rate"]
    cell = Cell(run.method, run.spec["method"]["settings"], given, run.spec["seed"])
    return identity(cell.method, cell.settings, cell.rate, cell.seed)


def _launch(experiment: Experiment, cells: Sequence[Cell], user: User, version: DatasetVersion, base: BaseModel) -> list[Run]:
    return [_launch_one(experiment, cell, user, version, base) for cell in cells]


def _launch_one(experiment: Experiment, cell: Cell, user: User, version: DatasetVersion, base: BaseModel) -> Run:
    try:
        run = create_run(recipe_of(experiment.name, experiment.spec, cell, version, base), team=experiment.team, user=user)
    except UserError as error:
        # Which of the runs it was, before what is wrong with it.
        words = f"{cell.suffix()}: {error.message}"
        raise UserError.worded(error.code, words, error.remedy, where=error.where) from error
    run.experiment = experiment
    run.save(update_fields=["experiment"])
    return run


def recipe_of(name: str, spec: Mapping[str, Any], cell: Cell, version: DatasetVersion, base: BaseModel) -> Recipe:
    """The run for a cell of an experiment of that name and spec."""
    suffix = cell.suffix()
    shared = {key: spec[key] for key in SHARED}
    return Recipe(
        name=f"{name[: max(1, NAME_LENGTH - len(suffix) - 1)]}-{suffix}"[:NAME_LENGTH],
        dataset_version=version,
        base_model=base,
        method=cell.method,
        settings=dict(cell.settings),
        seed=cell.seed,
        **{**shared, "training": {**spec["training"], "learning_rate": cell.learning_rate}},
    )


def stop_all(experiment: Experiment, *, actor: str) -> int:
    """Cancels every run that has not ended; gives how many. Those that end meanwhile are left as they are."""
    return _each(experiment.runs.exclude(state__in=TERMINAL), lambda run: cancelling.cancel(run, actor=actor))


def retry_all(experiment: Experiment, state: State, *, actor: str) -> int:
    """Queues every run in that state again, `failed` or `cancelled`; gives how many."""
    return _each(experiment.runs.filter(state=state), lambda run: retrying.retry(run, actor=actor))


def _each(runs: Any, action: Callable[[Run], Run]) -> int:
    done = 0
    for run in runs.order_by("created_at"):
        try:
            action(run)
        except UserError:
            continue  # its state is another by now
        done += 1
    return done
