"""Starts of LoRA that move a part of the base's weight into the adapter: W - s B A is held frozen, A and B are trained.

At step 0 the model is the base but for rounding; what differs is which directions learn first. Since the frozen weights are others than the
base's, such an adapter is always saved as a plain LoRA over the base itself (`jobs.methods.lora.hooks`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jobs.methods.lora.gradients import gradient_directions
from jobs.methods.lora.layers import ADAPTER, Factors, dense_weight, lora_layers, set_dense_weight, set_factors
from jobs.methods.selection import setting_unfit
from jobs.methods.setup import Setup

MOVING = ("pissa", "olora", "lora_ga")

# Randomised SVD: directions beyond those wanted, and rounds of power iteration (Halko et al. 2011, arXiv:0909.4061; PiSSA takes 16 rounds).
_SPARE = 8
_ROUNDS = 16
# LoRA-GA's constant of the size of A and B (Wang et al. 2024, section 4.1).
_GAMMA = 16.0


@torch.no_grad()
def move_into_adapter(model: Any, start: str, setup: Setup) -> None:
    """Sets A and B of every LoRA layer of a PEFT `model` over a base of 16 or 32 bits, and takes s B A out of the weights below.

    What a checkpoint kept of the start (`setup.kept`) is taken as it is, so that a resumed run stands on the same bits wherever it runs.
    Raises `UserError("method_setting")` where a layer is narrower than the rank.
    """
    layers = dict(lora_layers(model))
    kept = kept_factors(setup.kept)
    if not kept:
        _require_width(layers, start)
        found = gradient_directions(model, layers, setup) if start == "lora_ga" else {}
    for done, (name, layer) in enumerate(layers.items(), start=1):
        rank, scale, base = layer.r[ADAPTER], layer.scaling[ADAPTER], layer.get_base_layer()
        weight = dense_weight(base)
        if kept:
            given = kept[name]
        elif start == "pissa":
            torch.manual_seed(setup.seed)  # for the sketch of the randomised SVD: the same for a layer, whatever came before it
            given = pissa(weight, rank, scale)
        elif start == "olora":
            given = olora(weight, rank)
        else:
            given = lora_ga(*found[name], rank)
        given = (given[0].to(weight.device), given[1].to(weight.device))
        set_factors(layer, given)
        set_dense_weight(base, weight - scale * (given[1] @ given[0]))
        setup.progress(done, len(layers), "tensors")


def pissa(weight: Tensor, rank: int, scale: float) -> Factors:
    """The principal part of a weight [outputs, inputs]: with W = U S V', A = (S/s)^1/2 V' and B = U (S/s)^1/2 of the `rank` largest.

    Meng et al. 2024, arXiv:2404.02948, by randomised SVD, which draws from torch's global generator.
    """
    wanted = min(rank + _SPARE, *weight.shape)
    left, sizes, right = torch.svd_lowrank(weight, q=wanted, niter=_ROUNDS)
    root = (sizes[:rank] / scale).sqrt()
    return root[:, None] * right[:, :rank].t(), left[:, :rank] * root


def olora(weight: Tensor, rank: int) -> Factors:
    """With W = Q R: B is the first `rank` columns of Q, orthonormal, A the first rows of R. Büyükakyüz 2024, arXiv:2406.01775."""
    orthogonal, upper = torch.linalg.qr(weight)
    return upper[:rank], orthogonal[:, :rank]


def lora_ga(left: Tensor, right: Tensor, rank: int) -> Factors:
    """From the leading singular vectors of the loss's gradient by W, U [outputs, 2 rank] and V [inputs, 2 rank]: A is the first `rank`
    of V, B the next of U, both by d_out^1/4 / gamma^1/2, so that the first step of A and B is as near as a LoRA can be to one of W.

    Wang et al. 2024, arXiv:2407.05000, theorem 3.1 and algorithm 1.
    """
    size = left.shape[0] ** 0.25 / math.sqrt(_GAMMA)
    return size * right[:, :rank].t(), size * left[:, rank : 2 * rank]


def kept_factors(kept: Mapping[str, Tensor]) -> dict[str, Factors]:
    """The start's A and B by layer, from what the hooks keep in a checkpoint."""
    names = [key.removeprefix("start_A/") for key in kept if key.startswith("start_A/")]
    return {name: (kept[f"start_A/{name}"], kept[f"start_B/{name}"]) for name in names}


def _require_width(layers: Mapping[str, Any], start: str) -> None:
    """A QR or SVD has as many directions as the smaller side of the matrix; LoRA-GA takes twice the rank."""
    share = 2 if start == "lora_ga" else 1
    for name, layer in layers.items():
        narrow = min(layer.in_features, layer.out_features) // share
        if layer.r[ADAPTER] > narrow:
            size = f"{layer.out_features} x {layer.in_features}"
            raise setting_unfit(start, "rank", f"is {layer.r[ADAPTER]}, and {name} is {size}, which gives a start of {narrow} at most")
