"""Which method and settings to take for a run, and what to ask less of: `python -m jobs advise`, in the box."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.timezone import now

from jobs.device import Device
from jobs.errors import UserError
from jobs.methods.obstacles import obstacle
from jobs.methods.registry import all_methods
from jobs.planning.rules import Wish
from jobs.spec import RunSpec
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.core.box import QUICK, run_in_box
from webapp.datasets.models import DatasetVersion
from webapp.runs.models import Run, Worker
from webapp.runs.services.past import past_runs
from webapp.runs.services.specs import for_worker
from webapp.settings.env import ENV
from webapp.work.outbox import TRAIN_QUEUE


def advise(
    team: Team, spec: RunSpec, *, dataset_version: DatasetVersion, base_model: BaseModel, wish: Wish, each: Sequence[RunSpec] = ()
) -> dict[str, Any]:
    """The answer of `jobs advise --json` for a run of `team` (docs/advice.md), with `device`: the one that was counted with.

    `spec` has names in the place of paths; `each` are the same run by other methods, or with other settings.
    Raises `UserError`: `no_worker`, or what the engine refuses.
    """
    device = least_device()
    run = Run(team=team, dataset_version=dataset_version, base_model=base_model, spec=spec.to_json())
    given = {
        "spec": for_worker(run).to_json(),
        "device": device,
        "past": [asdict(outcome) for outcome in past_runs(team)],
        "each": [{part: one.to_json()[part] for part in ("method", "training")} for one in each],
    }
    cache = Path(settings.GRAFT_VAR) / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="graft-advice-") as name:
        files = {part: Path(name) / f"{part}.json" for part in given}
        for part, body in given.items():
            files[part].write_text(json.dumps(body), encoding="utf-8")
        options = {
            "--device": files["device"],
            "--past": files["past"],
            "--each": files["each"],
            "--rows": dataset_version.rows("train"),
            "--wish": wish,
            "--without": ",".join(_unfit(spec, base_model, device)),
            "--cache": cache,
        }
        answer = run_in_box(
            ["advise", str(files["spec"]), *(str(part) for pair in options.items() for part in pair), "--keep-engine", "--json"],
            readable={
                Path(name): "advice",
                dataset_version.folder: str(dataset_version),
                base_model.folder: base_model.name,
                cache: "cache",
            },
            limits=QUICK,
        )
    return {**answer, "device": device}


def least_device() -> Device:
    """That of the training worker with the least memory: a run may come to any of them. Those that live, else those that were ever seen.

    Raises `UserError("no_worker")`.
    """
    workers = [worker for worker in Worker.objects.filter(queue=TRAIN_QUEUE) if worker.device.get("memory_bytes")]
    living = [worker for worker in workers if now() - worker.seen_at <= timedelta(seconds=ENV.worker_forget_seconds)]
    devices: list[Device] = [worker.device for worker in living or workers]
    if not devices:
        raise UserError("no_worker")
    return min(devices, key=lambda device: device["memory_bytes"])


def _unfit(spec: RunSpec, base_model: BaseModel, device: Device) -> list[str]:
    """The methods that do not fit task, base model or device."""
    facts, kinds = base_model.facts, {device["kind"]}
    return [
        method.id
        for method in all_methods()
        if obstacle(method, task=spec.task, facts=facts, model=base_model.name, device_kinds=kinds, adapters={})
    ]
