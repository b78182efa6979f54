"""What a kind of adapter has to say of itself to be merged tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.export.adapter_file import AdapterFile
from jobs.export.floats import Float32
from jobs.export.shards import StoredTensor

# Alters `rows` [rows, numbers of a row] of a weight in place; the second argument is the index of the first of them.
Apply = Callable[[Float32, int], None]


class CannotStreamError(Exception):
    """An adapter that cannot be merged tensor by tensor; peft may still do it in memory."""


@dataclass(frozen=True)
class Change:
    """How one weight of the base changes. `load` reads what it takes of the adapter; `whole`: it needs all rows at once."""

    load: Callable[[], Apply]
    whole: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of adapter.

    `find(adapter, tensor)` takes from the adapter what changes the base's `tensor`, if anything, and raises `CannotStreamError` where it
    does not fit. `options` are the settings of peft's config that `find` honours or that mean nothing to a merge: any other one that is
    set means more than is known here. `check(config)` raises `CannotStreamError` where a known one has a value that is not.
    """

    find: Callable[[AdapterFile, StoredTensor], Change | None]
    options: frozenset[str]
    check: Callable[[Mapping[str, Any]], None] = lambda config: None


def split(name: str) -> tuple[str, str]:
    """A tensor's module and its own name within it: `model.norm.weight` is `model.norm`, `weight`."""
    module, _, leaf = name.rpartition(".")
    return module, leaf


def check_shape(tensor: StoredTensor, shape: tuple[int, ...]) -> None:
    """Raises `CannotStreamError` unless an update of that shape fits the tensor."""
    if tensor.shape != shape:
        raise CannotStreamError(f"the update of {tensor.name} has the shape {shape}, the base {tensor.shape}")
