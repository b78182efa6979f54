"""Linear layer and cross-entropy in one, tile by tile, so that the logits of all label positions never exist at once.

The gradient of each tile is taken while its logits are at hand (as in Liger Kernel and cut cross-entropy, arXiv:2411.09009), so the
backward pass only scales it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jobs.training import regions

# Logits of one tile: 16 M numbers, 64 MiB in float32, whatever the size of the vocabulary.
_TILE_NUMBERS = 2**24
# Of the weight's gradient, at most so many are made at once beside the sum that they are added to.
ADDED_NUMBERS = 2**22


def tile_rows(vocabulary: int) -> int:
    """Rows of a tile."""
    return max(16, _TILE_NUMBERS // vocabulary)


class Head(NamedTuple):
    """An output layer: weight [vocabulary, width], bias [vocabulary] or None, logits capped at softcap * tanh(logits / softcap)."""

    weight: Tensor
    bias: Tensor | None
    softcap: float | None

    def logits(self, hidden: Tensor, dtype: torch.dtype) -> Tensor:
        """float32 [rows, vocabulary] from hidden [rows, width]; the product is made in `dtype`."""
        return _logits(hidden.to(dtype), self.weight.to(dtype), self.bias, self.softcap)


def linear_cross_entropy(hidden: Tensor, head: Head, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum of the cross-entropies of labels int64 [rows] from hidden [rows, width], float32 [], with gradient; products are in `dtype`."""
    loss: Tensor = LinearCrossEntropy.apply(hidden, head.weight, head.bias, labels, head.softcap, dtype)  # type: ignore[no-untyped-call]
    return loss


class LinearCrossEntropy(torch.autograd.Function):
    """`apply(hidden, weight, bias, labels, softcap, dtype)` -> sum of the cross-entropies, float32 [].

    hidden [labels, width], weight [vocabulary, width], bias [vocabulary] or None, labels int64 [labels]; `softcap` caps the logits at
    softcap * tanh(logits / softcap); products are made in `dtype`, the rest in float32.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 autograd passes arguments by position
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float | None, dtype: torch.dtype
    ) -> Tensor:
        """Sums the loss, and keeps the gradients of hidden, weight and bias."""
        with torch.autocast(hidden.device.type, enabled=False):
            states, matrix = hidden.to(dtype), weight.to(dtype)
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            d_hidden = torch.empty_like(states)
            d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
            d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
            size = tile_rows(weight.shape[0])
            for start in range(0, len(labels), size):
                tile, wanted = states[start : start + size], labels[start : start + size]
                loss, gradient = _tile(tile @ matrix.t(), bias, wanted, softcap)
                total += loss
                d_hidden[start : start + size] = gradient @ matrix
                if d_weight is not None:
                    _add_product(d_weight, gradient, tile)
                if d_bias is not None:
                    d_bias += gradient.sum(dim=0, dtype=torch.float32)
        ctx.gradients = (d_hidden.to(hidden.dtype), d_weight, d_bias)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *scales: Tensor) -> tuple[Tensor | None, ...]:
        """Scales the gradients kept by forward."""
        d_hidden, d_weight, d_bias = ctx.gradients
        ctx.gradients = None
        scale = scales[0]
        return (
            d_hidden * scale.to(d_hidden.dtype),
            None if d_weight is None else (d_weight.mul_(scale)).to(ctx.weight_dtype),
            None if d_bias is None else (d_bias.mul_(scale)).to(ctx.weight_dtype),
            None,
            None,
            None,
        )


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """float32 [rows, vocabulary]."""
    scores = (hidden @ weight.t()).float()
    if bias is not None:
        scores += bias.float()
    return softcap * torch.tanh(scores / softcap) if softcap else scores


@torch.no_grad()
def score(hidden: Tensor, head: Head, labels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(sum of the cross-entropies, number of labels that are the most likely token), float64 [], without gradients."""
    head = head._replace(weight=head.weight.to(dtype))
    total, correct = torch.zeros(2, dtype=torch.float64, device=hidden.device)
    size = tile_rows(head.weight.shape[0])
    for start in range(0, len(labels), size):
        wanted = labels[start : start + size]
        scores = head.logits(hidden[start : start + size], dtype)
        total += functional.cross_entropy(scores, wanted, reduction="sum").double()
        correct += (scores.argmax(dim=-1) == wanted).sum()
    return total, correct


def _add_product(total: Tensor, gradient: Tensor, tile: Tensor) -> None:
    """Adds gradient' tile to `total` float32 [vocabulary, width], some rows at a time: the whole product would be there in its own type
    and in float32.
    """
    rows = max(1, ADDED_NUMBERS // total.shape[1])
    for start in range(0, len(total), rows):
        part = slice(start, start + rows)
        total[part] += gradient[:, part].t() @ tile


def _tile(scores: Tensor, bias: Tensor | None, labels: Tensor, softcap: float | None) -> tuple[Tensor, Tensor]:
    """The summed loss of a tile, and its gradient with respect to the product `scores`, in its dtype."""
    if bias is None and not softcap:
        return regions.cross_entropy_tile(scores, labels)
    logits = scores.float() if bias is None else scores.float() + bias.float()
    if not softcap:
        loss, gradient = regions.cross_entropy_tile(logits, labels)
    else:
        bent = torch.tanh(logits / softcap)
        loss, gradient = regions.cross_entropy_tile(softcap * bent, labels)
        gradient = gradient * (1.0 - bent.square())
    return loss, gradient.to(scores.dtype)
