"""Time of a step, from the arithmetic that it takes and from what the device was measured to do. Free of torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.planning.calibration import Calibration, Rates
from jobs.planning.tensors import KEPT_TOKENS, Step, kept_by_layer
from jobs.planning.way import Way
from jobs.planning.weights import trained_parameters

# Bytes that an update of AdamW moves for each number: weight, gradient and two moments read, weight and moments written, float32.
UPDATE_BYTES = 4 * 7
# How often the elementwise parts of a step touch each byte that they keep: written, read by what follows, read again in the backward
# pass, and its gradient written and read.
TOUCHES = 5
# Calls into torch in one decoder layer, forward and backward, of the smallest usual model.
CALLS_PER_LAYER = 150
# Without a past run to compare with: how far a prediction may be off, as factors of tokens a second.
UNPROVEN = (0.6, 1.25)
LEAST_PAST_RUNS = 3


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one micro-batch, forward and backward, by kind; a multiplication and an addition count as two."""

    forward: float
    backward: float
    gradient: float
    head: float
    attention: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.forward + self.backward + self.gradient + self.head + self.attention


@dataclass(frozen=True)
class PastRun:
    """A run that has been: what was predicted for it and what was measured, in tokens a second."""

    device: str
    method: str
    precision: str
    predicted: float
    measured: float


@dataclass(frozen=True)
class Speed:
    """Tokens a second: expected, and a range. `basis` says in a sentence what it rests on."""

    tokens_per_second: float
    low: float
    high: float
    basis: str


def work_of(step: Step) -> Work:
    """The operations of one micro-batch.

    A frozen layer needs no gradient of its weights: 4 operations for each weight and token in place of 6. The output layer sees label
    positions alone. Attention computes whole squares: two products forward, four backward, one more where shares are computed again.
    """
    shape, way, tokens = step.shape, step.way, step.tokens
    layers = sum(linear.numbers for linear in shape.linears) + _experts(step)
    adapter = 0 if way.trains_base else trained_parameters(shape, way)
    passes = 2 if way.training.gradient_checkpointing else 1
    head_tokens = step.batch.labels if way.label_head else tokens
    again = 2 if way.grids and step.batch.longest > KEPT_TOKENS else 0
    square = 2 * shape.heads * shape.head_width * step.batch.squares * shape.layers
    return Work(
        forward=passes * 2 * tokens * (layers + adapter),
        backward=2 * tokens * (layers + adapter),
        gradient=2 * tokens * (layers if way.trains_base else adapter),
        head=(6 if way.trains_base else 4) * head_tokens * shape.vocabulary * shape.hidden,
        attention=square * (2 * passes + 4 + again),
    )


def _experts(step: Step) -> float:
    """Numbers of the experts that a token takes, in all layers."""
    shape = step.shape
    if shape.experts == 1:
        return 0.0
    return 3.0 * shape.layers * shape.active_experts * shape.hidden * shape.intermediate


def micro_batch_seconds(step: Step, calibration: Calibration) -> float:
    """Forward and backward of one micro-batch: its products at the measured rates, what is elementwise at the measured bandwidth, and the
    least time of the calls into torch.
    """
    rates, work = _rates(step.way, calibration), work_of(step)
    products = (
        work.forward / rates.forward
        + work.backward / rates.backward
        + work.gradient / rates.gradient
        + work.head / rates.head
        + work.attention / rates.attention
    )
    moved = TOUCHES * step.shape.layers * sum(kept_by_layer(step).values())
    if step.way.base_bits == 4:  # dequantised once forward and once backward: 4 bits read, the arithmetic's type written and read
        moved += 2 * sum(linear.numbers for linear in step.shape.linears) * (0.5 + 2 * step.way.compute_bytes)
    return products + moved / calibration.bandwidth + CALLS_PER_LAYER * step.shape.layers * calibration.call_seconds


def _rates(way: Way, calibration: Calibration) -> Rates:
    """The rates of the run's precision; packed weights have their own, float16 has bfloat16's."""
    rates = calibration.rates["float32" if way.precision == "float32" else "bfloat16"]
    if not way.packs_weights or not rates.packed:
        return rates
    return Rates(rates.packed, rates.packed, rates.gradient, rates.packed, rates.head, rates.attention)


def step_seconds(step: Step, calibration: Calibration) -> float:
    """A whole step: its micro-batches and the update."""
    update = UPDATE_BYTES * trained_parameters(step.shape, step.way) / calibration.bandwidth
    return step.way.training.gradient_accumulation * micro_batch_seconds(step, calibration) + update


def predict(step: Step, calibration: Calibration) -> float:
    """Tokens a second of training, the rows' own tokens counted."""
    return step.way.training.gradient_accumulation * step.batch.tokens / step_seconds(step, calibration)


def refine(predicted: float, way: Way, past_runs: Sequence[PastRun]) -> Speed:
    """The prediction corrected by runs of the same device, method and precision: by the median of measured over predicted, with the
    range of what was seen. Pure: past runs are given.
    """
    alike = [
        run.measured / run.predicted
        for run in past_runs
        if (run.device, run.method, run.precision) == (way.device["name"], way.method, way.precision) and run.predicted > 0
    ]
    if not alike:
        basis = "a probe of this device; no run of this method on it has been measured yet"
        return Speed(predicted, predicted * UNPROVEN[0], predicted * UNPROVEN[1], basis)
    factor = statistics.median(alike)
    low, high = min(alike), max(alike)
    if len(alike) < LEAST_PAST_RUNS:  # one or two runs say little of how much runs differ
        low, high = min(low, factor * UNPROVEN[0]), max(high, factor * UNPROVEN[1])
    basis = f"a probe of this device, corrected by {len(alike)} measured {'run' if len(alike) == 1 else 'runs'} of this method on it"
    return Speed(predicted * factor, predicted * low, predicted * high, basis)
