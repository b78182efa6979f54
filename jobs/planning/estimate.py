"""The estimate of a run before launch: parameters, memory by part, time. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jobs.device import Device
from jobs.planning.advice import Advice, advise
from jobs.planning.batches import RowLengths, largest_batch, mean_batch
from jobs.planning.calibration import Calibration
from jobs.planning.compiled import compiled_regions
from jobs.planning.memory import MemoryPlan, plan_memory
from jobs.planning.shape import ModelShape
from jobs.planning.speed import PastRun, Speed, predict, refine
from jobs.planning.tensors import Step
from jobs.planning.way import Way, choose_way
from jobs.planning.weights import adapter_parameters
from jobs.spec import RunSpec

# Taken where the device was not calibrated: what a process with everything imported was measured to hold (CPU: resident; CUDA: context).
UNMEASURED_RUNTIME = {"cpu": 700_000_000, "cuda": 600_000_000}
# Share of a device's memory that is counted on: the rest is lost to fragments, to other processes and to what is not counted here.
USABLE_SHARE = 0.92


@dataclass(frozen=True)
class Estimate:
    """What a run would take. Sizes in bytes, times in seconds; `speed` and `seconds` are None where the device was not calibrated.

    `fits` says whether the device's memory is enough; where not, or only just, `advice` says what to change, the largest effect first.
    """

    parameters: dict[str, int]
    trained_parameters: int
    memory: MemoryPlan
    device_bytes: int
    fits: bool
    advice: tuple[Advice, ...]
    steps: int
    rows_known: bool
    speed: Speed | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """The estimate as a JSON object, with `peak_bytes` and `peak_phase` of its memory."""
        body = asdict(self)
        body["memory"] |= {"peak": self.memory.peak, "peak_phase": self.memory.peak_phase}
        return body


def estimate(
    spec: RunSpec,
    device: Device,
    shape: ModelShape,
    lengths: RowLengths,
    *,
    calibration: Calibration | None = None,
    past_runs: Sequence[PastRun] = (),
    regions: Path | None = None,
) -> Estimate:
    """What `spec` would take on `device`. Raises `UserError` where method and device do not go together.

    `regions` is the folder of compiled regions; without it the run is taken to be one that computes uncompiled, which needs more memory.
    """
    runtime = calibration.runtime_bytes if calibration else UNMEASURED_RUNTIME[device["kind"]]

    def outline(changed: RunSpec) -> _Outline:
        return _Outline.of(changed, device, shape, lengths, runtime=runtime, regions=regions)

    plan = outline(spec)
    usable = USABLE_SHARE * device["memory_bytes"]
    fits = plan.memory.peak <= usable
    speed = None
    if calibration is not None:
        usual = mean_batch(plan.rows, spec.training, packed=plan.way.packed, shares_prefix=plan.way.engine.shared_prefix)
        speed = refine(predict(Step(shape, plan.way, usual), calibration), plan.way, past_runs)
    tokens = plan.steps * min(plan.rows.rows, spec.training.micro_batch * spec.training.gradient_accumulation) * plan.rows.mean
    return Estimate(
        parameters={part: count for part, count in shape.parameters.items() if count},
        trained_parameters=shape.total_parameters if plan.way.trains_base else adapter_parameters(plan.way),
        memory=plan.memory,
        device_bytes=device["memory_bytes"],
        fits=fits,
        advice=() if fits else advise(spec, plan.memory.peak, usable, lambda changed: outline(changed).memory.peak),
        steps=plan.steps,
        rows_known=lengths.known,
        speed=speed,
        seconds=tokens / speed.tokens_per_second if speed else None,
    )


def count_steps(spec: RunSpec, lengths: RowLengths) -> int:
    """Steps of the run (`jobs.training.order.Order.total_steps`)."""
    per_epoch = math.ceil(lengths.rows / (spec.training.micro_batch * spec.training.gradient_accumulation))
    wanted = max(1, math.ceil(spec.training.epochs * per_epoch - 1e-9))
    return min(wanted, spec.training.max_steps or wanted)


@dataclass(frozen=True)
class _Outline:
    """A spec on a device: how it is carried out, its rows as they are cut, its steps, its memory."""

    way: Way
    rows: RowLengths
    steps: int
    memory: MemoryPlan

    @classmethod
    def of(cls, spec: RunSpec, device: Device, shape: ModelShape, lengths: RowLengths, *, runtime: int, regions: Path | None) -> _Outline:
        way, training = choose_way(spec, device, shape), spec.training
        if regions:
            way = replace(way, compiled=compiled_regions(regions, shape, way))
        longest = training.max_length or lengths.natural_length()
        rows = lengths.cut(min(longest, shape.context or longest))
        steps = count_steps(spec, rows)
        micro_batches = steps * training.gradient_accumulation
        batch = largest_batch(rows, training, micro_batches, packed=way.packed, shares_prefix=way.engine.shared_prefix)
        return cls(way, rows, steps, plan_memory(spec, Step(shape, way, batch), rows, runtime=runtime))
