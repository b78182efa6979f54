"""The estimate of a run before launch: parameters, memory by part, time. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jobs.device import Device
from jobs.methods.adapter import count_trained
from jobs.planning.advice import Advice, advise
from jobs.planning.batches import RowLengths, largest_batch, mean_batch
from jobs.planning.calibration import Calibration
from jobs.planning.compiled import compiled_regions
from jobs.planning.memory import MemoryPlan, plan_memory
from jobs.planning.shape import ModelShape
from jobs.planning.speed import PastRun, Speed, predict, refine
from jobs.planning.tensors import Step
from jobs.planning.way import Way, choose_way
from jobs.spec import RunSpec

# Taken where the device was not calibrated: what a process with everything imported was measured to hold (CPU: resident; CUDA: context).
UNMEASURED_RUNTIME = {"cpu": 700_000_000, "cuda": 600_000_000}
# Share of a device's memory that is counted on: the rest is lost to fragments, to other processes and to what is not counted here.
USABLE_SHARE = 0.92


@dataclass(frozen=True)
class Estimate:
    """What a run would take. Sizes in bytes, times in seconds; `speed` and `seconds` are None where the device was not calibrated.

    `trained_parameters` is None where it hangs on what the run sees, and `trained_unknown` is then the end of a sentence that says why.
    `guess` says, in a sentence, why the memory is a guess; empty where what the method keeps in a step is known.
    `fits` says whether the device's memory is enough; where not, or only just, `advice` says what to change, the largest effect first.
    """

    parameters: dict[str, int]
    trained_parameters: int | None
    trained_unknown: str
    guess: str
    memory: MemoryPlan
    device_bytes: int
    fits: bool
    advice: tuple[Advice, ...]
    steps: int
    rows_known: bool
    speed: Speed | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """The estimate as a JSON object, with `peak` and `peak_phase` of its memory and `trained_share`, of the base's parameters."""
        body = asdict(self)
        body["memory"] |= {"peak": self.memory.peak, "peak_phase": self.memory.peak_phase}
        body["trained_share"] = None if self.trained_parameters is None else self.trained_parameters / sum(self.parameters.values())
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
    labels: int = 2,
) -> Estimate:
    """What `spec` would take on `device`. Raises `UserError` where method and device do not go together.

    `regions` is the folder of compiled regions; without it the run is taken to be one that computes uncompiled, which needs more memory.
    `labels` are those of a classification.
    """
    runtime = calibration.runtime_bytes if calibration else UNMEASURED_RUNTIME[device["kind"]]

    def outline(changed: RunSpec) -> _Outline:
        return _Outline.of(changed, device, shape, lengths, runtime=runtime, regions=regions, labels=labels)

    plan = outline(spec)
    usable = USABLE_SHARE * device["memory_bytes"]
    fits = plan.memory.peak <= usable
    speed = None
    if calibration is not None:
        usual = plan.way.lengthened(
            mean_batch(plan.rows, spec.training, packed=plan.way.packed, shares_prefix=plan.way.engine.shared_prefix)
        )
        speed = refine(predict(Step(shape, plan.way, usual), calibration), plan.way, past_runs)
    tokens = plan.steps * min(plan.rows.rows, spec.training.micro_batch * spec.training.gradient_accumulation) * plan.rows.mean
    return Estimate(
        parameters={part: count for part, count in shape.parameters.items() if count},
        trained_parameters=count_trained(plan.way.adapter, shape.frame(spec.task, labels)),
        trained_unknown=plan.way.adapter.unknown if plan.way.adapter else "",
        guess=_guess(plan.way, spec),
        memory=plan.memory,
        device_bytes=device["memory_bytes"],
        fits=fits,
        advice=() if fits else advise(spec, plan.memory.peak, usable, lambda changed: outline(changed).memory.peak),
        steps=plan.steps,
        rows_known=lengths.known,
        speed=speed,
        seconds=tokens / speed.tokens_per_second if speed else None,
    )


def _guess(way: Way, spec: RunSpec) -> str:
    if spec.task != "causal_lm":
        return f"Memory and time are a guess: they are known for models that write, not for the task {spec.task}."
    if way.adapter is not None and way.adapter.keeps is None:
        return f"The memory of training is a guess: what {way.method} keeps in a step is not known, and left out."
    return ""


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
    def of(
        cls, spec: RunSpec, device: Device, shape: ModelShape, lengths: RowLengths, *, runtime: int, regions: Path | None, labels: int
    ) -> _Outline:
        way, training = choose_way(spec, device, shape, labels), spec.training
        if regions:
            way = replace(way, compiled=compiled_regions(regions, shape, way))
        longest = training.max_length or lengths.natural_length()
        rows = lengths.cut(min(longest, shape.context or longest))
        steps = count_steps(spec, rows)
        micro_batches = steps * training.gradient_accumulation
        batch = largest_batch(rows, training, micro_batches, packed=way.packed, shares_prefix=way.engine.shared_prefix)
        return cls(way, rows, steps, plan_memory(spec, Step(shape, way, way.lengthened(batch)), rows, runtime=runtime))
