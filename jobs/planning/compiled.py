"""Which of the regions that weigh on memory are compiled for a run, seen by the names of the files. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.geometry import Geometry
from jobs.planning.shape import ModelShape
from jobs.planning.way import Way

# Those of jobs.training.regions.ACTIVATIONS; a model has one of them.
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")


def compiled_regions(folder: Path, shape: ModelShape, way: Way) -> frozenset[str]:
    """The regions among `cross_entropy_tile`, `gate_back` and `attend` that have a library in `folder` for this model and way."""
    if not way.elementwise:
        return frozenset()
    return frozenset(geometry.region for geometry in geometries(shape, way) if (folder / geometry.file_name).is_file())


def geometries(shape: ModelShape, way: Way) -> Iterator[Geometry]:
    """Those regions as the run calls them; `gate_back` with each activation."""
    number, heads = way.precision, shape.key_heads
    yield Geometry("cross_entropy_tile", (), (number, "int64"), (("*rows", shape.vocabulary), ("*rows",)), (None, None))
    scores = ("*rows", heads, "*longest", shape.heads // heads, "*length")
    yield Geometry("attend", (("dtype", number),), ("float32", "int64", "int64"), (scores, ("*longest",), ()), (None, None, None))
    branch = ("*tokens", shape.intermediate)
    # as one product of a group, gate and up are views of one matrix
    strides = (2 * shape.intermediate, 1) if way.fused_lora and any(linear.part == "mlp" for linear in way.targets) else None
    for activation in ACTIVATIONS:
        yield Geometry("gate_back", (("activation", activation),), (number,) * 3, (branch,) * 3, (None, strides, strides))
