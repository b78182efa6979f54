"""What a method puts upon a base, told before anything is loaded (torch-free): the weights that train, and what a step keeps for them.

Each method's entry has a function of its resolved settings and of the base's frame that gives an `Adapter`; families share what is here.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jobs.adapter_files import CONFIG
from jobs.methods.selection import targeted
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape


@dataclass(frozen=True)
class Keeps:
    """What a layer of the base, or several, keeps for the backward pass because of the adapter, in numbers.

    `token`: for each token, in the arithmetic's type; `token_wide`: the same in float32. `made` and `made_wide`: whatever the tokens, such
    as an update made whole; `copied`: float32 weights that autocast narrows, so that in float32 there are none. `reads`: the inputs of the
    layers are kept, and `casts`: each by itself, since autocast narrows it anew from float32 (else those that read the same keep the same).
    """

    token: int = 0
    token_wide: int = 0
    made: int = 0
    made_wide: int = 0
    copied: int = 0
    reads: bool = False
    casts: bool = False

    def __add__(self, other: Keeps) -> Keeps:
        return Keeps(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True)
class Adapter:
    """`weights` are what trains, float32, by name: the layer's in the base, a dot, and what it is; `layers` are those of the base that are
    changed, and `ranks` of those that have LoRA's two matrices and nothing else, which the engine can join to their base.

    `unknown`: why the number of weights is known only once the run has begun, as the end of a sentence; what is told is then what memory is
    planned with. `head` are the modules of the task that train too, with their numbers. `keeps` is the sum over all layers; None where it
    is not known. `frozen` are float32 numbers that lie beside the weights. Of virtual tokens, `before` pass through the model before each
    row, and of `cached` there are the keys and values alone.
    """

    weights: Mapping[str, Shape]
    layers: tuple[Layer, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    unknown: str = ""
    head: Mapping[str, int] = field(default_factory=dict)
    keeps: Keeps | None = None
    frozen: int = 0
    before: int = 0
    cached: int = 0

    @property
    def numbers(self) -> int:
        """How many numbers train, those of a task's head too."""
        return sum(math.prod(shape) for shape in self.weights.values()) + sum(self.head.values())


def beside(
    frame: Frame,
    settings: Mapping[str, Any],
    method: str,
    shapes: Callable[[Layer], Mapping[str, Shape]],
    keeps: Callable[[Layer], Keeps] | None = None,
) -> Adapter:
    """An adapter at each of the layers that the setting `targets` means, with the weights that `shapes` gives for one.

    Raises `UserError("method_setting")` where there is no such layer.
    """
    return upon(targeted(frame, str(settings["targets"]), method=method), shapes, keeps)


def upon(layers: Iterable[Layer], shapes: Callable[[Layer], Mapping[str, Shape]], keeps: Callable[[Layer], Keeps] | None = None) -> Adapter:
    """An adapter at each of these layers."""
    found = tuple(layers)
    weights = {f"{layer.name}.{kind}": shape for layer in found for kind, shape in shapes(layer).items()}
    return Adapter(weights, found, keeps=sum((keeps(layer) for layer in found), Keeps()) if keeps else None)


def two_matrices(layer: Layer, rank: int) -> dict[str, Shape]:
    """LoRA's A and B for a layer."""
    return {"A": (rank, layer.inputs), "B": (layer.outputs, rank)}


# Far above what any setting takes.
CONFIG_BYTES = 1 << 20


def read_config(adapter: Path) -> dict[str, Any] | None:
    """The `adapter_config.json` of a finished adapter, a folder or its zip; None where there is none to read."""
    try:
        if adapter.is_dir():
            return dict(json.loads((adapter / CONFIG).read_text(encoding="utf-8")))
        with zipfile.ZipFile(adapter) as members, members.open(CONFIG) as file:
            # A training that a stranger's model has taken over may have written it: a bomb is cut off, and then no JSON.
            return dict(json.loads(file.read(CONFIG_BYTES)))
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile):
        return None


def count_trained(adapter: Adapter | None, frame: Frame) -> int | None:
    """How many numbers a run trains, told of `plan_adapter`'s answer: all of the base where that is None; None where it is not known."""
    if adapter is None:
        return frame.parameters
    return None if adapter.unknown else adapter.numbers
