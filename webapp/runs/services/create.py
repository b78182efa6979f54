"""Launch a run: check all that can be checked before a GPU is taken, then write it down with its doorbell."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from uuid import UUID

from django.db.models.functions import Now

from jobs.device import Device, choose_precision
from jobs.errors import UserError
from jobs.methods.entry import Method
from jobs.methods.obstacles import obstacle
from jobs.methods.registry import get_method
from jobs.spec import RunSpec, Task
from jobs.tasks.obstacles import model_obstacle
from jobs.tasks.registry import get_task
from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.checks.lengths import learns_nothing
from webapp.checks.models import Survey
from webapp.datasets.mapping import unfit_rows
from webapp.datasets.models import DatasetVersion
from webapp.runs.kinds import Kind
from webapp.runs.models import Run, Worker
from webapp.runs.services.queueing import queue_run
from webapp.runs.services.specs import Recipe
from webapp.settings.env import ENV
from webapp.work.outbox import TRAIN_QUEUE

NAME_LENGTH = 120


def create_run(recipe: Recipe, *, team: Team, user: User, kind: Kind = Kind.TRAIN, run_id: UUID | None = None) -> Run:
    """Queues a new run of `team`: a training, or the analysis of one. `run_id` becomes its id, which a caller may know beforehand.

    Raises `UserError`, whose `where["field"]` names the field at fault, before anything is written.
    """
    version, base_model = recipe.dataset_version, recipe.base_model
    check_inputs(team, recipe.name, version, base_model)
    check_task(recipe.task, version, base_model)
    entry = get_method(recipe.method)
    entry.resolve(recipe.settings)
    _check_method(team, entry, recipe)
    spec = recipe.spec()
    entry.check_checkpointing(wanted=spec.training.gradient_checkpointing)
    check_devices(entry, spec)
    _check_learns(spec, version, base_model)
    return queue_run(
        kind=kind,
        team=team,
        user=user,
        name=recipe.name.strip(),
        dataset_version=version,
        base_model=base_model,
        method=recipe.method,
        spec=spec.to_json(),
        run_id=run_id,
    )


def check_inputs(team: Team, name: str, version: DatasetVersion, base_model: BaseModel) -> None:
    """Refuses a name, data or a base model that a run of `team` cannot have. Raises `UserError`."""
    if not name.strip() or len(name.strip()) > NAME_LENGTH:
        raise UserError("run_name", limit=NAME_LENGTH, where={"field": "name"})
    if version.dataset.team_id != team.id or version.state != DatasetVersion.State.READY:
        raise UserError("dataset_not_ready", name=version, where={"field": "dataset_version"})
    if nothing := version.blocking:
        raise UserError.worded(nothing["code"], nothing["message"], nothing["remedy"], where={"field": "dataset_version"})
    if base_model.team_id not in (None, team.id) or base_model.state != BaseModel.State.READY:
        raise UserError("model_not_ready", name=base_model.name, where={"field": "base_model"})


def check_task(task: Task, version: DatasetVersion, base_model: BaseModel) -> None:
    """Refuses, by `UserError`, a task that the base model or the dataset does not serve."""
    name = get_task(task).name
    if reason := model_obstacle(task, base_model.facts, base_model.name) or unfit_rows(task, version):
        raise UserError("task_unfit", task=name, reason=reason, where={"field": "task"})


def _check_method(team: Team, method: Method, recipe: Recipe) -> None:
    """Refuses a method that does not fit task and base model, and adapters that it cannot build on."""
    base_model, adapters = recipe.base_model, recipe.adapters
    method.check_adapters([str(run.id) for run in adapters])
    for run in adapters:
        fits = run.team_id == team.id and run.base_model_id == base_model.id and run.method in method.capabilities.adapters_of
        if not fits:
            raise UserError("adapter_unfit", run=run.name, method=method.name, model=base_model.name, where={"field": "adapters"})
    reason = obstacle(
        method,
        task=recipe.task,
        facts=base_model.facts,
        model=base_model.name,
        device_kinds=(),  # what the workers can do is asked of each of them
        adapters=Counter(run.method for run in adapters),
    )
    if reason:
        raise UserError("method_cannot", method=method.name, reason=reason, instead="Choose another method.", where={"field": "method"})


def check_devices(method: Method, spec: RunSpec) -> None:
    """Refuses, by `UserError`, what no worker that we know of can do. Where none has been seen yet, the run waits in the queue for one."""
    recent = Now() - timedelta(seconds=ENV.worker_forget_seconds)
    devices = [device for device in Worker.objects.filter(queue=TRAIN_QUEUE, seen_at__gt=recent).values_list("device", flat=True) if device]
    refusals = [refusal for device in devices if (refusal := _refusal(method, spec, device))]
    if devices and len(refusals) == len(devices):
        raise refusals[0]


def _check_learns(spec: RunSpec, version: DatasetVersion, base_model: BaseModel) -> None:
    """Refuses, by `UserError`, a maximum length at which the data check has found that every answer is cut off."""
    training = spec.training
    if spec.task != "causal_lm" or training.max_length is None:
        return
    known = Survey.objects.filter(version=version, base_model=base_model, loss_on=training.loss_on, state=Survey.State.DONE).first()
    if known is not None and learns_nothing(known.result, training.max_length):
        raise UserError("nothing_to_learn", max_length=training.max_length, where={"field": "max_length"})


def _refusal(method: Method, spec: RunSpec, device: Device) -> UserError | None:
    try:
        method.check_device(device)
        choose_precision(spec.training.precision, device)
    except UserError as refusal:
        return refusal
    return None
