"""Memory of a run by part and by phase. Free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.planning.batches import RowLengths
from jobs.planning.shape import ModelShape
from jobs.planning.tensors import Step, held_by_head, held_by_layer_backward, kept_by_layer, kept_whole
from jobs.planning.way import NUMBER_BYTES, Way
from jobs.planning.weights import (
    adapter_parameters,
    fused_bytes,
    gradient_bytes,
    optimiser_bytes,
    packed_weight_bytes,
    trained_shapes,
    weight_bytes,
)
from jobs.spec import RunSpec

# Equal to those of the engine, which imports torch; tests hold them together.
CACHE_TOKENS = 16_384
GENERATION_ROWS = 64
COMPARED_POSITIONS = 512

Parts = dict[str, float]


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of torch's allocator by phase (`loading`, `training`, `evaluating`, `exporting`), and by part at the worst moment of training.

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
        "loading": _loading(shape, way),
        "training": totals[worst],
        "evaluating": resting + _evaluating(spec, shape, way, lengths),
        "exporting": resting + _exporting(spec, shape, way),
    }
    parts = {name: round(size) for name, size in moments[worst].items() if size}
    return MemoryPlan({name: round(size) for name, size in phases.items()}, parts, worst, runtime)


def standing(shape: ModelShape, way: Way) -> Parts:
    """What is there from the first step to the last."""
    return {
        "weights": weight_bytes(shape, way),
        "adapter": 4 * adapter_parameters(way),
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
        kept, rebuilt = layers * way.stream_bytes * step.tokens * shape.hidden, layer
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
            "activations": whole + (layer if way.training.gradient_checkpointing else 0),
            "backward in passing": max(backward, embedding),
        },
        "update": {**held, "gradients": gradients, "update in passing": _update(shape, way)},
    }


def _update(shape: ModelShape, way: Way) -> float:
    """Adafactor makes the update of one tensor beside it; AdamW, fused, makes nothing."""
    largest = max((math.prod(matrix) for matrix in trained_shapes(shape, way)), default=0)
    return 2 * 4 * largest if way.training.optimiser == "adafactor" else 0


def _loading(shape: ModelShape, way: Way) -> float:
    """A 4-bit base is quantised tensor by tensor, each from its 16 or 32 bits."""
    largest = max((linear.numbers for linear in shape.linears), default=0)
    return weight_bytes(shape, way) + (3 * way.compute_bytes * largest if way.base_bits == 4 else 0)


def _evaluating(spec: RunSpec, shape: ModelShape, way: Way, lengths: RowLengths) -> float:
    """The key-value cache of a batch of answers, and the logits of its last tokens."""
    if not spec.evaluation.generate:
        return 0.0
    length = max(lengths.lengths) + spec.evaluation.max_new_tokens
    rows = max(1, min(GENERATION_ROWS, CACHE_TOKENS // length, spec.evaluation.rows))
    b, tokens = way.compute_bytes, rows * length
    cache = 2 * b * shape.layers * shape.key_heads * shape.head_width * tokens
    passing = tokens * b * (3 * shape.intermediate * shape.active_experts + 4 * shape.hidden)
    narrow = b * sum(linear.numbers for linear in shape.linears) if way.trains_base and b < 4 else 0
    return cache + passing + narrow + 4 * rows * shape.vocabulary


def _exporting(spec: RunSpec, shape: ModelShape, way: Way) -> float:
    """The model that was stored is read back beside the trained one, and their logits are compared."""
    if not way.trains_base and spec.export.merge == "none":
        return 4.0 * COMPARED_POSITIONS * shape.vocabulary
    width = 4 if spec.export.dtype == "float32" else NUMBER_BYTES[way.precision]
    return width * shape.total_parameters + 4.0 * COMPARED_POSITIONS * shape.vocabulary
