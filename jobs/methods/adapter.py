"""What a method puts upon a base, told before anything is loaded (torch-free): the weights that train, and what is held beside them.

Each method's entry has a function of its resolved settings and of the base's frame that gives an `Adapter`; families share what is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.methods.targets import targeted
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape


@dataclass(frozen=True)
class Adapter:
    """`weights` are what trains, float32, by name: the layer's in the base, a dot, and what it is; `layers` are those of the base that are
    changed.

    `unknown`: why the number of weights is known only once the run has begun, as the end of a sentence; what is told is then what memory is
    planned with.
    """

    weights: Mapping[str, Shape]
    layers: tuple[Layer, ...] = ()
    unknown: str = ""
    head: Mapping[str, int] = field(default_factory=dict)

    @property
    def numbers(self) -> int:
        """How many numbers train, those of a task's head too."""
        return sum(math.prod(shape) for shape in self.weights.values()) + sum(self.head.values())


def beside(frame: Frame, settings: Mapping[str, Any], method: str, shapes: Callable[[Layer], Mapping[str, Shape]]) -> Adapter:
    """An adapter at each of the layers that the setting `targets` means, with the weights that `shapes` gives for one.

    Raises `UserError("method_setting")` where there is no such layer.
    """
    return upon(targeted(frame, str(settings["targets"]), method=method), shapes)


def upon(layers: list[Layer], shapes: Callable[[Layer], Mapping[str, Shape]]) -> Adapter:
    """An adapter at each of these layers."""
    weights = {f"{layer.name}.{kind}": shape for layer in layers for kind, shape in shapes(layer).items()}
    return Adapter(weights, tuple(layers))


def two_matrices(layer: Layer, rank: int) -> dict[str, Shape]:
    """LoRA's A and B for a layer."""
    return {"A": (rank, layer.inputs), "B": (layer.outputs, rank)}


def count_trained(adapter: Adapter | None, frame: Frame) -> int | None:
    """How many numbers a run trains, told of `plan_adapter`'s answer: all of the base where that is None; None where it is not known."""
    if adapter is None:
        return frame.parameters
    return None if adapter.unknown else adapter.numbers
