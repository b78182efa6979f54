"""Memory of a run by part and by phase. Free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.planning.batches import RowLengths
from jobs.planning.passing import held_by_head, held_by_layer_backward
from jobs.planning.phases import evaluating, exporting, loading, preparing
from jobs.planning.shape import ModelShape
from jobs.planning.tensors import Step, kept_by_layer, kept_when_checkpointed, kept_whole
from jobs.planning.way import Way
from jobs.planning.weights import (
    fused_bytes,
    gradient_bytes,
    optimiser_bytes,
    packed_weight_bytes,
    trained_parameters,
    trained_shapes,
    weight_bytes,
)
from jobs.spec import RunSpec

Parts = dict[str, float]


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of torch's allocator by phase (`loading`, `preparing`, `training`, `evaluating`, `exporting`), and by part at the worst moment
    of training.

    `runtime` is what the process takes besides: Python, libraries, CUDA's context.
    """

    phases: dict[str, int]
    parts: dict[str, int]
    moment: str
    runtime: int

    @property
    def training(self) -> int:
        """Peak of the training itself."""
        return self.phases["training"]

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: self.phases[phase])

    @property
    def peak(self) -> int:
        """What the device must have, the runtime included."""
        return self.phases[self.peak_phase] + self.runtime


def plan_memory(spec: RunSpec, step: Step, lengths: RowLengths, *, runtime: int) -> MemoryPlan:
    """The memory of a run whose largest micro-batch is that of `step`."""
    shape, way = step.shape, step.way
    moments = training_moments(step)
    totals = {name: sum(parts.values()) for name, parts in moments.items()}
    worst = max(totals, key=lambda name: totals[name])
    held = standing(shape, way)
    resting = sum(held.values()) + (gradient_bytes(shape, way) if way.flat else 0)
    phases = {
        "loading": held["weights"] + loading(shape, way),
        "preparing": sum(held.values()) - held["optimiser"] + preparing(shape, way, lengths),
        "training": totals[worst],
        "evaluating": resting + evaluating(spec, shape, way, lengths),
        "exporting": resting + exporting(spec, shape, way, lengths, resting=resting, runtime=runtime),
    }
    parts = {name: round(size) for name, size in moments[worst].items() if size}
    return MemoryPlan({name: round(size) for name, size in phases.items()}, parts, worst, runtime)


def standing(shape: ModelShape, way: Way) -> Parts:
    """What is there from the first step to the last."""
    return {
        "weights": weight_bytes(shape, way),
        "adapter": 4 * (trained_parameters(shape, way) + way.adapter.frozen) if way.adapter else 0,
        "fused adapter and scratch": fused_bytes(way),
        "weights in oneDNN's layout": packed_weight_bytes(way),
        "optimiser": optimiser_bytes(shape, way),
    }


def training_moments(step: Step) -> dict[str, Parts]:
    """The parts at the moments of a step that can be its peak; activations go as gradients come, so that the ends are the worst."""
    shape, way, layers = step.shape, step.way, step.shape.layers
    held, gradients = standing(shape, way), gradient_bytes(shape, way)
    layer, whole = sum(kept_by_layer(step).values()), sum(kept_whole(step).values())
    head = held_by_head(step)
    backward = sum(held_by_layer_backward(step).values())
    there = gradients if way.gradients_stay else 0
    if way.training.gradient_checkpointing:
        kept, rebuilt = layers * sum(kept_when_checkpointed(step).values()), layer
    else:
        kept, rebuilt = layers * layer, 0.0
    output = head.get("gradient of the output layer", 0.0)
    waiting = output if shape.tied or way.flat else 0.0
    embedding = 4 * shape.vocabulary * shape.hidden if way.trains_base else 0
    return {
        "loss": {**held, "gradients": there, "activations": kept + whole, "output layer and loss": sum(head.values())},
        "backward begins": {**held, "gradients": there + output, "activations": kept + rebuilt + whole, "backward in passing": backward},
        "backward ends": {
            **held,
            "gradients": gradients + waiting,
            "activations": whole,
            "backward in passing": max(layer + backward, embedding),
        },
        "update": {**held, "gradients": gradients, "update in passing": _update(shape, way)},
    }


def _update(shape: ModelShape, way: Way) -> float:
    """Adafactor makes the update of one tensor beside it; AdamW, fused, makes nothing."""
    largest = max((math.prod(matrix) for matrix in trained_shapes(shape, way)), default=0)
    return 2 * 4 * largest if way.training.optimiser == "adafactor" else 0
