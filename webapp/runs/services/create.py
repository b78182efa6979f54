"""Launch a run: check all that can be checked before a GPU is taken, then write it down with its doorbell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db.models.functions import Now

from jobs.device import Device, choose_precision
from jobs.errors import UserError
from jobs.methods.entry import Method
from jobs.methods.obstacles import obstacle
from jobs.methods.registry import get_method
from jobs.spec import RunSpec
from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.kinds import Kind
from webapp.runs.models import Run, Worker
from webapp.runs.services.queueing import queue_run
from webapp.runs.services.specs import placeholder_spec
from webapp.settings.env import ENV
from webapp.work.outbox import TRAIN_QUEUE

NAME_LENGTH = 120


def create_run(
    *,
    team: Team,
    user: User,
    name: str,
    dataset_version: DatasetVersion,
    base_model: BaseModel,
    method: str,
    settings: dict[str, Any],
    adapters: Sequence[Run] = (),
    training: dict[str, Any],
    evaluation: dict[str, Any],
    export: dict[str, Any],
    seed: int,
    validation_share: float = 0.0,
) -> Run:
    """Queues a new run of `team`. The dicts are the parts of a `jobs.spec.RunSpec`; what they leave out takes its default.

    Raises `UserError`, whose `where["field"]` names the field at fault, before anything is written.
    """
    _check_inputs(team, name, dataset_version, base_model)
    entry = get_method(method)
    # The defaults are written out: a later version of the catalogue must not change what this run means.
    resolved = entry.resolve(settings)
    _check_method(team, entry, base_model, adapters)
    spec = placeholder_spec(
        {
            "method": {"id": method, "settings": resolved, "adapters": [str(run.id) for run in adapters]},
            "training": training,
            "evaluation": evaluation,
            "export": export,
            "seed": seed,
            "name": name.strip(),
        },
        dataset_version,
        base_model,
        validation_share,
    )
    entry.check_checkpointing(wanted=spec.training.gradient_checkpointing)
    _check_devices(entry, spec)
    return queue_run(
        kind=Kind.TRAIN,
        team=team,
        user=user,
        name=name.strip(),
        dataset_version=dataset_version,
        base_model=base_model,
        method=method,
        spec=spec.to_json(),
    )


def _check_inputs(team: Team, name: str, version: DatasetVersion, base_model: BaseModel) -> None:
    if not name.strip() or len(name.strip()) > NAME_LENGTH:
        raise UserError("run_name", limit=NAME_LENGTH, where={"field": "name"})
    if version.dataset.team_id != team.id or version.state != DatasetVersion.State.READY:
        raise UserError("dataset_not_ready", name=version, where={"field": "dataset_version"})
    if base_model.team_id not in (None, team.id) or base_model.state != BaseModel.State.READY:
        raise UserError("model_not_ready", name=base_model.name, where={"field": "base_model"})


def _check_method(team: Team, method: Method, base_model: BaseModel, adapters: Sequence[Run]) -> None:
    """Refuses a method that does not fit the base model, and adapters that it cannot build on."""
    method.check_adapters([str(run.id) for run in adapters])
    for run in adapters:
        fits = run.team_id == team.id and run.base_model_id == base_model.id and run.method in method.capabilities.adapters_of
        if not fits:
            raise UserError("adapter_unfit", run=run.name, method=method.name, model=base_model.name, where={"field": "adapters"})
    reason = obstacle(
        method,
        task="causal_lm",
        facts=base_model.facts,
        model=base_model.name,
        device_kinds=(),  # what the workers can do is asked of each of them
        adapters=Counter(run.method for run in adapters),
    )
    if reason:
        raise UserError("method_cannot", method=method.name, reason=reason, instead="Choose another method.", where={"field": "method"})


def _check_devices(method: Method, spec: RunSpec) -> None:
    """Refuses what no worker that we know of can do. Where none has been seen yet, the run waits in the queue for one."""
    recent = Now() - timedelta(seconds=ENV.worker_forget_seconds)
    devices = [device for device in Worker.objects.filter(queue=TRAIN_QUEUE, seen_at__gt=recent).values_list("device", flat=True) if device]
    refusals = [refusal for device in devices if (refusal := _refusal(method, spec, device))]
    if devices and len(refusals) == len(devices):
        raise refusals[0]


def _refusal(method: Method, spec: RunSpec, device: Device) -> UserError | None:
    try:
        method.check_device(device)
        choose_precision(spec.training.precision, device)
    except UserError as refusal:
        return refusal
    return None
