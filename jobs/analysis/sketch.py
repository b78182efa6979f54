"""The singular values of one layer's gradient, from what flows through the layer, without ever holding the gradient.

Of a linear layer the loss's gradient by its weight is G = sum g' x over all tokens, with x [tokens, inputs] what the layer reads and
g [tokens, outputs] the gradient of what it answers. A product of G with a thin matrix is therefore a sum over tokens too, and needs no
gradient of the weight: it can be had of a frozen weight, and of one in 4 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Random directions that measure what lies outside of the sketch.
_PROBES = 16


class Sketch:
    """Randomised range finder and projection (Halko, Martinsson, Tropp 2011, arXiv:0909.4061, algorithms 4.1 and 5.1) as two passes.

    The first pass sums Y = G Omega with a Gaussian `test` matrix Omega [inputs, k] and ends in an orthonormal basis Q [outputs, k] of Y.
    The second sums B = Q' G, whose singular values are those of G but for what Q misses; they are never too large. How much it misses is
    estimated by the second sum G Psi of a few Gaussian directions (Hutch++: Meyer et al. 2021, arXiv:2010.09649).
    """

    def __init__(self, outputs: int, test: Tensor, probes: Tensor) -> None:
        """`test` float32 [inputs, k] and `probes` float32 [inputs, `_PROBES`] may be shared by layers; k is at most either width."""
        self._test, self._probes = test[:, : min(test.shape[1], outputs)], probes
        self._basis: Tensor | None = None
        self._sum = torch.zeros(outputs, self._test.shape[1], device=test.device)
        self._seen = torch.zeros(outputs, probes.shape[1], device=test.device)

    def add(self, x: Tensor, gradient: Tensor) -> None:
        """Takes in some tokens: `x` float32 [tokens, inputs], `gradient` float32 [tokens, outputs]."""
        if self._basis is None:
            self._sum += gradient.t() @ (x @ self._test)
        else:
            self._sum += (gradient @ self._basis).t() @ x
            self._seen += gradient.t() @ (x @ self._probes)

    def turn(self) -> None:
        """Ends the first pass."""
        self._basis = torch.linalg.qr(self._sum).Q
        self._sum = torch.zeros(self._basis.shape[1], self._test.shape[0], device=self._test.device)

    def found(self, scale: float = 1.0) -> tuple[Tensor, float]:
        """After the second pass: (the leading singular values of `scale` G, float64 [k], largest first, and the squared Frobenius norm of
        `scale` G, all of it).
        """
        if self._basis is None:
            raise ValueError("the first pass has not ended")
        inside = self._sum.double()
        values = torch.linalg.eigvalsh(inside @ inside.t()).clamp_min(0).sqrt().flip(0)
        outside = self._seen - self._basis @ (self._basis.t() @ self._seen)
        energy = float(inside.square().sum()) + float(outside.double().square().sum()) / self._seen.shape[1]
        return scale * values.cpu(), scale * scale * energy


def draw(inputs: int, directions: int, generator: torch.Generator, device: str) -> tuple[Tensor, Tensor]:
    """(`test` [inputs, k], `probes`) of a `Sketch`: standard normal, float32."""
    test = torch.randn(inputs, min(directions, inputs), generator=generator)
    return test.to(device), torch.randn(inputs, _PROBES, generator=generator).to(device)
