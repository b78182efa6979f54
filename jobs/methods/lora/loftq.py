"""LoftQ: A and B start as the best low-rank correction of what 4 bits lose of the weights.

Li et al. 2023, arXiv:2310.08659, algorithm 1 with one alternating step, T = 1: Q = NF4(W), then A B' = SVD_r(W - Q). More steps quantise
W - A B' anew, so that the base would no longer be the quantised model that everybody else loads: those are not done. PEFT's own needs CUDA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from jobs.errors import UserError
from jobs.methods.lora.layers import ADAPTER, Factors, lora_layers, set_factors
from jobs.methods.lora.starts import kept_factors
from jobs.methods.setup import Setup
from jobs.models.quantisation import lies_across

_SPARE = 8
_ROUNDS = 4


@torch.no_grad()
def correct_rounding(model: Any, setup: Setup) -> None:
    """Sets A and B of every LoRA layer over a 4-bit base from the weights in the base's files, tensor by tensor.

    Raises `UserError("method_cannot")` where a file lacks a layer's weight, as where the architecture renames tensors while loading.
    """
    from bitsandbytes.functional import dequantize_4bit

    layers = dict(lora_layers(model))
    kept = kept_factors(setup.kept)
    files = _Files(setup.base_folder)
    for done, (name, layer) in enumerate(layers.items(), start=1):
        packed = layer.get_base_layer().weight
        if not hasattr(packed, "quant_state"):
            continue  # some architectures keep a layer in 16 bits (T5's wo): nothing was lost there, it starts as plain LoRA
        if kept:
            given = kept[name]
        else:
            rounded = dequantize_4bit(packed.data, packed.quant_state).float()
            stored = files.weight(f"{name}.weight").to(rounded.device).float()
            lost = (stored.T if lies_across(layer.get_base_layer()) else stored) - rounded
            torch.manual_seed(setup.seed)
            given = low_rank(lost, layer.r[ADAPTER], layer.scaling[ADAPTER])
        set_factors(layer, given)
        setup.progress(done, len(layers), "tensors")


def low_rank(lost: Tensor, rank: int, scale: float) -> Factors:
    """A and B with s B A the best approximation of rank `rank` of a matrix [outputs, inputs], the singular values shared between the two.

    Where the matrix is narrower than the rank, the rest of A is as LoRA draws it and the rest of B zero.
    """
    found = min(rank, *lost.shape)
    left, sizes, right = torch.svd_lowrank(lost, q=min(found + _SPARE, *lost.shape), niter=_ROUNDS)
    root = (sizes[:found] / scale).sqrt()
    down = torch.empty(rank, lost.shape[1], device=lost.device)
    torch.nn.init.kaiming_uniform_(down, a=5**0.5)
    up = torch.zeros(lost.shape[0], rank, device=lost.device)
    down[:found] = root[:, None] * right[:, :found].t()
    up[:, :found] = left[:, :found] * root
    return down, up


class _Files:
    """The tensors of a folder of safetensors files, read one at a time."""

    def __init__(self, folder: Path | None) -> None:
        self._places: dict[str, Path] = {}
        for file in sorted(folder.glob("*.safetensors")) if folder else ():
            with safe_open(file, framework="pt") as opened:
                self._places.update(dict.fromkeys(opened.keys(), file))

    def weight(self, name: str) -> Tensor:
        """The tensor of that name; files of a base model without its head leave the model's own prefix out."""
        key = next((key for key in (name, name.partition(".")[2]) if key in self._places), None)
        if key is None:
            raise UserError(
                "method_cannot", method="LoftQ", reason=f"the base's files have no tensor {name} to compare its 4-bit form with",
                instead="Choose QLoRA.", where={"field": "method.id"},
            )  # fmt: skip
        with safe_open(self._places[key], framework="pt") as opened:
            found: Tensor = opened.get_tensor(key)
        return found
