"""From spectra to ranks: how many directions hold most of a gradient, one rank for all layers, and ranks layer by layer at the same cost.

Free of torch. What these suggestions are worth is a matter of measurement: docs/advice.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

# Ranks that are suggested: those in use, each twice the last.
RANKS = (4, 8, 16, 32, 64, 128)
# The stable rank (all energy over the largest) is 1 or 2 nearly everywhere and says nothing; these shares do.
SHARES = (0.8, 0.9)
# One rank for all: it holds the larger of `SHARES` in so many of the layers. The rest is the few that want much more than all others.
LAYERS_SERVED = 0.75


@dataclass(frozen=True)
class LayerSpectrum:
    """A layer's gradient [outputs, inputs]: its leading singular values, largest first, and `energy`, the sum of the squares of all.

    `layer` is its place in the stack (None outside of one), `module` the last part of its name.
    """

    name: str
    layer: int | None
    module: str
    outputs: int
    inputs: int
    singular_values: list[float]
    energy: float

    @property
    def cost(self) -> int:
        """Numbers that one rank of LoRA adds here."""
        return self.outputs + self.inputs

    @property
    def captured(self) -> float:
        """The share of the energy that the known singular values hold."""
        return min(1.0, sum(value * value for value in self.singular_values) / self.energy) if self.energy else 1.0

    def held(self) -> list[float]:
        """The share of the energy that the first 1, 2, ... directions hold, as many as are known; all of it where there is no gradient."""
        energies = accumulate(value * value for value in self.singular_values)
        return [min(1.0, energy / self.energy) if self.energy else 1.0 for energy in energies]

    def effective_rank(self, share: float) -> int | None:
        """The least number of directions that hold `share` of the energy; None where it is more than are known, 0 without a gradient."""
        wanted, held = share * self.energy, 0.0
        for rank, value in enumerate((0.0, *self.singular_values)):
            held += value * value
            if held >= wanted:
                return rank
        return None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        ranks = {f"effective_rank_{round(100 * share)}": self.effective_rank(share) for share in SHARES}
        shape = {"outputs": self.outputs, "inputs": self.inputs}
        figures = {"energy": self.energy, "captured": self.captured, "singular_values": self.singular_values}
        return {"name": self.name, "layer": self.layer, "module": self.module, **shape, **ranks, **figures}


@dataclass(frozen=True)
class Suggestion:
    """One rank for all layers. `at_least`: the spectrum goes on beyond the directions that were looked at; it may be too low."""

    rank: int
    at_least: bool


def suggest_rank(layers: Sequence[LayerSpectrum]) -> Suggestion:
    """The least of `RANKS` that holds 90 % of the gradient's energy in three layers of four; within what was looked at."""
    known = max(len(layer.singular_values) for layer in layers)
    wanted = sorted(found if (found := layer.effective_rank(SHARES[-1])) is not None else known + 1 for layer in layers)
    served = wanted[min(len(wanted) - 1, int(LAYERS_SERVED * len(wanted)))]
    within = [rank for rank in RANKS if rank <= known] or [known]
    return Suggestion(next((rank for rank in within if rank >= served), within[-1]), at_least=served > within[-1])


def spread_ranks(layers: Sequence[LayerSpectrum], rank: int) -> dict[str, int]:
    """Ranks by layer that together cost at most what `rank` costs everywhere, one at least: directions are taken in the order of the
    share of their own layer's energy that they hold, as EVA does with activations (Paischer et al. 2024, arXiv:2410.07170, section 3).

    No layer gets more directions than are known of it. Raises `ValueError` where `rank` is less than 1.
    """
    if rank < 1:
        raise ValueError(f"a rank of {rank}")
    left = rank * sum(layer.cost for layer in layers) - sum(layer.cost for layer in layers)
    ranks = {layer.name: 1 for layer in layers}
    offers = [
        (value * value / layer.energy if layer.energy else 0.0, -number, place)
        for place, layer in enumerate(layers)
        for number, value in enumerate(layer.singular_values[1:], start=1)
    ]
    closed: set[str] = set()  # a layer takes its directions in order: one that was too dear ends it
    for _, _, place in sorted(offers, reverse=True):
        layer = layers[place]
        if layer.name in closed:
            continue
        if layer.cost > left:
            closed.add(layer.name)
            continue
        ranks[layer.name] += 1
        left -= layer.cost
    return ranks


def by_module(layers: Sequence[LayerSpectrum]) -> dict[str, dict[str, Any]]:
    """For each kind of module, over its layers: least, median and largest effective rank at each share, unknown ones counted as one more
    than is known; and `held`, the median share of the energy that the first 1, 2, ... directions hold.
    """
    found: dict[str, dict[str, Any]] = {}
    for module in dict.fromkeys(layer.module for layer in layers):
        same = [layer for layer in layers if layer.module == module]
        found[module] = {"layers": len(same)}
        for share in SHARES:
            known = (layer.effective_rank(share) for layer in same)
            ranks = sorted(len(layer.singular_values) + 1 if rank is None else rank for layer, rank in zip(same, known, strict=True))
            found[module][f"effective_rank_{round(100 * share)}"] = [ranks[0], ranks[len(ranks) // 2], ranks[-1]]
        found[module]["held"] = [median(shares) for shares in zip(*(layer.held() for layer in same), strict=False)]
    return found
