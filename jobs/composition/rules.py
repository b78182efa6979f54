"""Which finished adapters go together, by what is known of their runs (free of torch): a form greys out what the engine would refuse.

The files have the last word (`parts`, `low_rank`, `jobs.methods.block_sparse.compose`): what is not known here is no obstacle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.composition.combinations import COMBINATIONS, Combination
from jobs.composition.spec import BLOCKS, LOW_RANK
from jobs.methods.entry import Method, SettingValue
from jobs.spec import Task

_KINDS = {LOW_RANK: "low-rank (LoRA)", BLOCKS: "block-sparse"}


@dataclass(frozen=True)
class Finished:
    """A finished adapter: its method with resolved settings (none where they are not known), the task it was trained for, and its base, by
    an id of its revision and by name.
    """

    method: Method
    settings: Mapping[str, SettingValue]
    task: Task
    base_id: str
    base: str

    @property
    def kind(self) -> str:
        """PEFT's name of the adapter's kind, of those that can be combined."""
        return BLOCKS if self.method.id == "block_sparse" else LOW_RANK

    @property
    def grid(self) -> tuple[SettingValue, ...]:
        """Rows and columns of blocks, where it is of blocks and they are known."""
        return tuple(self.settings[name] for name in ("block_rows", "block_columns") if name in self.settings)

    @property
    def rank(self) -> int | None:
        """The rank of every layer, where settings say so: other starts than the default double or spread it, a pattern varies it."""
        varies = any(setting.type == "ranks" and self.settings.get(setting.name) for setting in self.method.settings)
        known = "rank" in self.settings and self.settings.get("start", "default") == "default" and not varies
        return int(self.settings["rank"]) if known else None


def obstacle(adapter: Finished) -> str:
    """One clause that says why an adapter can be combined with none; empty where nothing speaks against it."""
    if not adapter.method.capabilities.combines:
        return f"what {adapter.method.name} trains does not add up"
    if adapter.settings.get("start") == "loftq":
        return "its start (LoftQ) makes up for the base's rounding, which a sum would do twice"
    if adapter.task != "causal_lm":
        return "it brings a head of its own, and heads do not add up"
    return ""


def difference(adapter: Finished, first: Finished) -> str:
    """One clause that says why an adapter does not go with `first`; empty where nothing speaks against it. It names neither."""
    if adapter.base_id != first.base_id:
        return f"its base is {adapter.base}, that of the first is {first.base}"
    if adapter.kind != first.kind:
        return f"it is {_KINDS[adapter.kind]}, the first is {_KINDS[first.kind]}"
    if adapter.grid and first.grid and adapter.grid != first.grid:
        return f"its grid of blocks is {_size(adapter.grid)}, that of the first is {_size(first.grid)}"
    return ""


def misfit(combination: str, kind: str) -> str:
    """One clause that says why a combination does not fit adapters of a kind; empty where it does."""
    if kind == BLOCKS and COMBINATIONS[combination].of != "stack":
        return "it is for low-rank updates; blocks are collected, and added where several meet"
    return ""


def unequal(combination: Combination, adapters: Sequence[Finished]) -> str:
    """One clause that says why a combination of factors does not fit these ranks, as far as they are known; empty where it does."""
    ranks = [adapter.rank for adapter in adapters if adapter.rank is not None]
    if combination.of == "factors" and len(set(ranks)) > 1:
        return f"{combination.name} needs equal ranks, and these are {', '.join(map(str, ranks))}"
    return ""


def _size(grid: tuple[SettingValue, ...]) -> str:
    return " x ".join(map(str, grid))
