"""EVA: A starts as the directions in which the layer's inputs vary most, and layers that need more of them get a higher rank.

Paischer et al. 2024, arXiv:2410.07170. The principal components of the inputs are found by subspace iteration on their covariance, in a few
passes over a few rows: memory holds one thin matrix a layer, never the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jobs.methods.lora.sampling import flat, passes, sample_rows, seeing_inputs, shared_inputs
from jobs.methods.setup import Setup

# A layer may get at most so many times the rank asked for (the paper's rho).
RHO = 2
_SPARE = 8
_ROUNDS = 2


class _Components:
    """The principal components of one input, in the making; `basis` is [inputs, components], orthonormal."""

    def __init__(self, generator: torch.Generator, components: int) -> None:
        self.generator, self.wanted = generator, components
        self.count, self.variance = 0, 0.0
        self.total: Tensor | None = None

    def centre(self, x: Tensor) -> None:
        """The first pass: the mean. x is [tokens, inputs]."""
        self.total = x.sum(0) + (0 if self.total is None else self.total)
        self.count += len(x)

    def begin(self) -> None:
        """Draws a basis to start from."""
        assert self.total is not None  # noqa: S101 for mypy: the first pass is over
        self.mean = self.total / self.count
        inputs = len(self.mean)
        drawn = torch.randn(inputs, min(self.wanted + _SPARE, inputs), generator=self.generator)
        self.basis = torch.linalg.qr(drawn.to(self.mean.device)).Q
        self.sum = torch.zeros_like(self.basis)

    def turn(self, x: Tensor) -> None:
        """A pass that turns the basis towards the components: covariance times basis."""
        centred = x - self.mean
        self.sum += centred.t() @ (centred @ self.basis)

    def turned(self) -> None:
        """The end of such a pass."""
        self.basis = torch.linalg.qr(self.sum).Q
        self.sum = torch.zeros_like(self.basis)
        self.gram = torch.zeros(self.basis.shape[1], self.basis.shape[1], device=self.basis.device)

    def measure(self, x: Tensor) -> None:
        """The last pass: the covariance within the basis, and the whole variance."""
        centred = x - self.mean
        inside = centred @ self.basis
        self.gram += inside.t() @ inside
        self.variance += float(centred.square().sum())

    def found(self) -> tuple[Tensor, Tensor]:
        """(shares of the variance [components], directions [components, inputs]), the largest first."""
        sizes, turns = torch.linalg.eigh(self.gram)
        order = sizes.argsort(descending=True)[: self.wanted]
        directions = (self.basis @ turns[:, order]).t()
        return sizes[order] / max(self.variance, 1e-30), directions


@torch.no_grad()
def principal_components(model: Any, names: list[str], components: int, setup: Setup) -> dict[str, tuple[Tensor, Tensor]]:
    """For each layer of the base `model` the shares of its input's variance [components] and their directions [components, inputs]."""
    layers = {name: model.get_submodule(name) for name in names}
    rows = sample_rows(setup, "EVA")
    groups = shared_inputs(model, layers, rows[0])
    generator = torch.Generator().manual_seed(setup.seed)
    made = {group[0]: _Components(generator, components) for group in groups}
    read = {name: layers[name] for name in made}
    for number, one in enumerate(passes(model, rows, _ROUNDS + 2, setup)):
        step = "centre" if number == 0 else "turn" if number <= _ROUNDS else "measure"
        with seeing_inputs(read, lambda name, x, step=step: getattr(made[name], step)(flat(x))):
            for _, ids in one:
                model(input_ids=ids, use_cache=False)
        for each in made.values():
            if step == "centre":
                each.begin()
            elif step == "turn":
                each.turned()
    found = {name: each.found() for name, each in made.items()}
    return {name: found[group[0]] for group in groups for name in group}


def spread_ranks(shares: Mapping[str, Tensor], rank: int) -> dict[str, int]:
    """The rank of each layer: `rank` x layers components in all, those that explain the largest share of their layer's variance."""
    owners = [name for name, found in shares.items() for _ in found]
    order = torch.cat([found.cpu() for found in shares.values()]).argsort(descending=True, stable=True)
    ranks = dict.fromkeys(shares, 0)
    for place in order[: rank * len(shares)].tolist():
        ranks[owners[place]] += 1
    return ranks
