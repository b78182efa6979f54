"""Memory that does not depend on the rows: weights, adapter, gradients, optimiser, and what the engine lays out beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from jobs.models.head_shapes import Shape
from jobs.planning.shape import Linear, ModelShape
from jobs.planning.way import Way

# bitsandbytes' layout of NF4 with double quantisation (bitsandbytes/functional.py, quantize_4bit and quantize_blockwise).
NF4_BLOCK = 64
NF4_SCALES_BLOCK = 256
_CODES_BYTES = 4 * 16
_SCALES_CODES_BYTES = 4 * 256
# Its 8-bit optimisers: one byte a number, a float32 scale for each block, float32 for small tensors.
STATE_BLOCK = 256
LEAST_8BIT_NUMBERS = 4096


def nf4_bytes(numbers: int) -> int:
    """A 4-bit weight as bitsandbytes lays it: two numbers a byte, one byte for the scale of each 64 of them, of which 256 share a float32
    scale; a table of 16 values, one of 256 for the scales, and the scales' mean.
    """
    scales = math.ceil(numbers / NF4_BLOCK)
    return math.ceil(numbers / 2) + scales + 4 * math.ceil(scales / NF4_SCALES_BLOCK) + _CODES_BYTES + _SCALES_CODES_BYTES + 4


def weight_bytes(shape: ModelShape, way: Way) -> int:
    """The base model: float32 where it trains, else in the precision, quantised layers in NF4 or in bytes with a float32 scale for each
    output.
    """
    if way.trains_base:
        return 4 * shape.total_parameters
    if way.base_bits == 16:
        return way.compute_bytes * shape.total_parameters
    rest = shape.total_parameters - sum(linear.numbers for linear in shape.linears)
    held = [nf4_bytes(linear.numbers) if way.base_bits == 4 else linear.numbers + 4 * linear.outputs for linear in shape.linears]
    return sum(held) + way.compute_bytes * rest


def trained_shapes(shape: ModelShape, way: Way) -> list[Shape]:
    """Every tensor that trains; of a head's module, its numbers."""
    if way.adapter is None:
        return list(shape.tensors.values())
    return [*way.adapter.weights.values(), *((numbers,) for numbers in way.adapter.head.values())]


def trained_parameters(shape: ModelShape, way: Way) -> int:
    """Numbers of all that trains."""
    return sum(math.prod(weight) for weight in trained_shapes(shape, way))


def gradient_bytes(shape: ModelShape, way: Way) -> int:
    """All gradients, float32."""
    return 4 * trained_parameters(shape, way)


def optimiser_bytes(shape: ModelShape, way: Way) -> int:
    """The optimiser's state on the device; states in pages are in host memory, but for a CPU, where there are no pages."""
    kind = way.training.optimiser
    if kind.startswith("paged_") and not way.on_cpu:
        return 0
    return sum(_state_bytes(kind.removeprefix("paged_"), weight) for weight in trained_shapes(shape, way))


def _state_bytes(kind: str, weight: Shape) -> int:
    numbers = math.prod(weight)
    if kind == "adafactor":  # a factored second moment: one number for each row and column of a matrix (arXiv:1804.04235)
        return 4 * (numbers if len(weight) == 1 else numbers // weight[-1] + numbers // weight[-2])
    if kind == "adamw_8bit" and numbers >= LEAST_8BIT_NUMBERS:
        return 2 * (numbers + 4 * math.ceil(numbers / STATE_BLOCK))
    return 2 * 4 * numbers


def groups(targets: Iterable[Linear]) -> list[list[Linear]]:
    """Targets that read the same input and so share one product."""
    found: dict[tuple[int, str, bool], list[Linear]] = {}
    for linear in targets:
        found.setdefault((linear.layer, linear.part, linear.leads_out), []).append(linear)
    return list(found.values())


def fused_bytes(way: Way) -> int:
    """What the one matrix product for base and LoRA holds beside the weights: A and sB in the arithmetic's type, side by side for the
    layers of a group; for a quantised base one matrix for each shape, into which weights are dequantised for each use.
    """
    if not way.fused_lora:
        return 0
    numbers = 0
    scratch: set[tuple[int, int]] = set()
    for group in groups(way.targets):
        outputs, ranks, inputs = sum(linear.outputs for linear in group), sum(way.ranks[linear.name] for linear in group), group[0].inputs
        numbers += ranks * (inputs + outputs)
        scratch.add((outputs, inputs + ranks))
    if way.base_bits < 16:
        numbers += sum(math.prod(matrix) for matrix in scratch)
    return way.compute_bytes * numbers


def packed_weight_bytes(way: Way) -> int:
    """Frozen float32 weights in oneDNN's layout: a copy for each direction."""
    return 2 * 4 * sum(linear.numbers for linear in way.targets) if way.packs_weights else 0
