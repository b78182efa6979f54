"""Where two block-sparse adapters act on the same weights (free of torch and numpy: pages draw it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EVENT = "block_scores"


@dataclass(frozen=True)
class Blocks:
    """The selected blocks of one adapted module, on a grid of `n` rows and `m` columns: row * m + column."""

    layer: int | None
    module: str
    n: int
    m: int
    positions: frozenset[int]


@dataclass(frozen=True)
class Shared:
    """What two adapters have in common in one module.

    `common` blocks are of both, out of `first` and `second`; `share` is their part of the smaller selection, and `chance` the part that
    two selections drawn at random would have in common on average.
    """

    layer: int | None
    module: str
    common: int
    first: int
    second: int
    share: float
    chance: float


@dataclass(frozen=True)
class Overlap:
    """Two adapters side by side: each module that both adapt, and all of these together. `conflicts` is the part of all blocks that either
    has, in any module, that both have.
    """

    modules: tuple[Shared, ...]
    share: float
    chance: float
    conflicts: float


def places(names: Sequence[str]) -> list[tuple[int | None, str]]:
    """(layer, module) of each adapted module by its name in the base: the first number in it, and what follows that. What stands before is
    kept where it differs between modules, as in an encoder and its decoder; a name without a number has no layer.
    """
    cut = [_cut(name) for name in names]
    stacks = {stack for stack, layer, _ in cut if layer is not None}
    return [(layer, rest if len(stacks) == 1 or layer is None else f"{stack}.{rest}") for stack, layer, rest in cut]


def _cut(name: str) -> tuple[str, int | None, str]:
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    if number is None:
        return "", None, name
    return ".".join(parts[:number]), int(parts[number]), ".".join(parts[number + 1 :])


def of_event(data: Mapping[str, Any]) -> list[Blocks]:
    """The blocks of a `method` event named `EVENT`.

    Raises `ValueError` where it does not hold all of them: grids of very many trained blocks show the best ones alone.
    """
    if any(len(each["positions"]) < each["k"] for each in data["modules"]):
        raise ValueError("the event does not hold all blocks")
    return [Blocks(each["layer"], each["module"], each["n"], each["m"], frozenset(each["positions"])) for each in data["modules"]]


def overlap(first: Sequence[Blocks], second: Sequence[Blocks]) -> Overlap:
    """How far the blocks of two adapters of one base are the same, module by module in the order of `first`.

    Raises `ValueError` where a module's grids differ, or no module is adapted by both.
    """
    others = {(blocks.layer, blocks.module): blocks for blocks in second}
    pairs = [(blocks, others[blocks.layer, blocks.module]) for blocks in first if (blocks.layer, blocks.module) in others]
    if not pairs:
        raise ValueError("the two adapters have no module in common")
    found = tuple(_shared(one, other) for one, other in pairs)
    common = sum(each.common for each in found)
    smaller = sum(min(each.first, each.second) for each in found)
    expected = sum(each.chance * min(each.first, each.second) for each in found)
    either = sum(len(blocks.positions) for blocks in (*first, *second)) - common
    return Overlap(found, common / smaller, expected / smaller, common / either)


def _shared(one: Blocks, other: Blocks) -> Shared:
    if (one.n, one.m) != (other.n, other.m):
        where = one.module if one.layer is None else f"{one.module} of layer {one.layer}"
        raise ValueError(f"{where} is cut into {one.n} x {one.m} blocks by one adapter and {other.n} x {other.m} by the other")
    first, second = len(one.positions), len(other.positions)
    common = len(one.positions & other.positions)
    return Shared(one.layer, one.module, common, first, second, common / min(first, second), max(first, second) / (one.n * one.m))
