"""Which blocks are trained: after each update those with the highest scores, and what the run's page sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.methods.block_sparse.overlap import EVENT, places
from jobs.methods.block_sparse.tuner import BlockSparseLinear, Grid
from jobs.methods.entry import SettingValue
from jobs.methods.hooks import Hooks, Reset
from jobs.methods.setup import Setup

# Blocks that an event holds in all, so that it stays below about 150 kB: all of SmolLM2's 210 x 15 and of Llama 3 8B's 224 x 50.
SHOWN_BLOCKS = 12_000
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class _Adapted:
    """An adapted layer, by its name in the PEFT model; `start` are the positions that its slots began with, int32 [k]."""

    name: str
    layer: BlockSparseLinear
    adapter: str
    start: Tensor

    @property
    def scores(self) -> Tensor:
        found: Tensor = self.layer.block_sparse_scores[self.adapter].detach().flatten()
        return found

    @property
    def values(self) -> Tensor:
        found: Tensor = self.layer.block_sparse_values[self.adapter]
        return found

    @property
    def positions(self) -> Tensor:
        found: Tensor = self.layer.block_sparse_positions[self.adapter]
        return found

    @property
    def grid(self) -> Grid:
        return self.layer.grid[self.adapter]


class Selection(Hooks):
    """Keeps each layer's slots at the top k of its scores. A slot whose block falls out takes one that came in, with values of zero."""

    def __init__(self, model: Any = None, settings: Mapping[str, SettingValue] | None = None, setup: Setup | None = None) -> None:
        super().__init__(model, settings, setup)
        self._layers = [
            _Adapted(name, layer, adapter, layer.block_sparse_positions[adapter].clone())
            for name, layer in model.named_modules()
            if isinstance(layer, BlockSparseLinear)
            for adapter in filter(layer.has, layer.active_adapters)
        ]
        self._alike: dict[tuple[int, int], list[_Adapted]] = {}
        for each in self._layers:
            self._alike.setdefault((each.scores.numel(), each.positions.numel()), []).append(each)

    def decays(self, weight: str) -> bool:
        """Scores order blocks: decay would shrink them all, and with them the update and the distances between them."""
        return ".block_sparse_scores." not in weight

    @torch.no_grad()
    def after_update(self, step: int, reset: Reset) -> None:
        """Selects anew, a pure function of the scores; layers of one size are compared together."""
        for alike in self._alike.values():
            scores = torch.stack([each.scores for each in alike])
            positions = torch.stack([each.positions for each in alike]).long()
            selected = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(positions.shape[1]).indices, True)
            stays = selected.gather(1, positions)
            for place in (~stays).any(dim=1).nonzero().flatten().tolist():
                _replace(alike[place], selected[place], stays[place], reset)

    def state(self) -> dict[str, Tensor]:
        """The block of each slot, now and at the start."""
        now = {f"{each.name}.positions": each.positions for each in self._layers}
        return now | {f"{each.name}.start": each.start for each in self._layers}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        for each in self._layers:
            each.positions.copy_(state[f"{each.name}.positions"])
            each.start.copy_(state[f"{each.name}.start"])

    @torch.no_grad()
    def observe(self) -> dict[str, Any] | None:
        """The selected blocks of each layer with their scores, the highest first; `jobs.events` lists the names."""
        shown = max(1, SHOWN_BLOCKS // len(self._layers))
        names = places([each.name.removeprefix(_PREFIX) for each in self._layers])
        return {"name": EVENT, "modules": [_seen(each, *place, shown) for each, place in zip(self._layers, names, strict=True)]}


def _replace(each: _Adapted, selected: Tensor, stays: Tensor, reset: Reset) -> None:
    """Gives the slots that do not stay to the blocks that are newly selected; `selected` is bool [n * m], `stays` bool [k]."""
    slots, left = (~stays).nonzero().flatten(), each.positions[~stays].long()
    entering = selected.clone()
    entering[each.positions.long()] = False
    each.positions[slots] = entering.nonzero().flatten().to(each.positions.dtype)
    each.values[slots] = 0
    size = each.grid.height * each.grid.width
    entries = slots[:, None] * size + torch.arange(size, device=slots.device)
    reset(f"{each.name}.block_sparse_values.{each.adapter}", entries.flatten())
    # Else the score of a block that left would sink on by its momentum, without a gradient.
    reset(f"{each.name}.block_sparse_scores.{each.adapter}", left)


def _seen(each: _Adapted, layer: int | None, module: str, shown: int) -> dict[str, Any]:
    scores, order = each.scores[each.positions.long()].sort(descending=True, stable=True)
    return {
        "layer": layer,
        "module": module,
        "n": each.grid.n,
        "m": each.grid.m,
        "k": len(order),
        "mean": _rounded(float(scores.mean())),
        "replaced": _rounded(float((each.positions != each.start).float().mean())),
        "positions": each.positions[order[:shown]].tolist(),
        "scores": [_rounded(score) for score in scores[:shown].tolist()],
    }


def _rounded(number: float) -> float:
    """A number of three digits."""
    return float(f"{number:.3g}")
