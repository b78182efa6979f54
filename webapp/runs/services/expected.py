"""What memory a run was to take: the estimate that its form showed, made for the device that it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from jobs.device import Device
from jobs.errors import UserError
from jobs.planning.estimate import Estimate
from jobs.planning.recommend import Situation
from jobs.spec import RunSpec
from webapp.runs.kinds import Kind
from webapp.runs.models import Run, Worker
from webapp.runs.services.advise import least_device
from webapp.runs.services.estimating import situation_of
from webapp.work.outbox import TRAIN_QUEUE


@dataclass(frozen=True)
class Expected:
    """The estimate of a run, and what it rests on."""

    situation: Situation
    found: Estimate

    @property
    def training_bytes(self) -> int:
        """What the device was to hold in training, libraries included; other phases may need more."""
        return self.found.memory.training + self.found.memory.runtime

    def changed(self, training: Mapping[str, Any]) -> Estimate | None:
        """What it becomes with other values of the spec's `training`; None where they do not go together."""
        spec = self.situation.spec
        try:
            other = RunSpec.from_json({**spec.to_json(), "training": {**spec.to_json()["training"], **training}})
            return self.situation.estimate(replace(spec, training=other.training))
        except UserError:
            return None


def expected(run: Run) -> Expected | None:
    """That of a training; None where its lengths, its base's files or a device for it are not known (any more)."""
    if run.kind != Kind.TRAIN:
        return None
    try:
        situation, rows = situation_of(run, _device_of(run))
        return Expected(situation, situation.estimate(situation.spec)) if rows.basis else None
    except UserError:
        return None


def _device_of(run: Run) -> Device:
    """The device that its plan names, with what a worker of that kind told of it; before there is a plan the one that the form counts with.

    Raises `UserError("no_worker")`.
    """
    plan = (run.summary.get("plan") or {}).get("device")
    if not plan:
        return least_device()
    for device in Worker.objects.filter(queue=TRAIN_QUEUE).order_by("name").values_list("device", flat=True):
        if (device.get("kind"), device.get("name")) == (plan.get("kind"), plan.get("name")):
            return cast(Device, {**device, **plan})
    raise UserError("no_worker")
