"""The LoRA layers of a PEFT model, and the weights below them as matrices [outputs, inputs]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ADAPTER = "default"  # PEFT's name of the adapter of a run

# The two matrices of a layer: A [rank, inputs] and B [outputs, rank], float32.
Factors = tuple[Tensor, Tensor]


def lora_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """(name in the base model, layer) of every LoRA layer upon a linear one."""
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "base_layer") and ADAPTER in getattr(module, "lora_A", {}):
            yield name, module


def factors(layer: Any) -> Factors:
    """A and B themselves, not copies."""
    return layer.lora_A[ADAPTER].weight.data, layer.lora_B[ADAPTER].weight.data


def set_factors(layer: Any, given: Factors) -> None:
    """Overwrites A and B, in place."""
    for held, new in zip(factors(layer), given, strict=True):
        held.copy_(new)


def dense_weight(layer: Any) -> Tensor:
    """The weight of a linear layer that is not quantised, float32 [outputs, inputs]; GPT-2's `Conv1D` keeps it transposed."""
    weight: Tensor = layer.weight.detach()
    return (weight.t() if _is_transposed(layer) else weight).float()


def set_dense_weight(layer: Any, weight: Tensor) -> None:
    """Overwrites that weight, rounded to the dtype it is held in, in place."""
    layer.weight.data.copy_(weight.t() if _is_transposed(layer) else weight)


def _is_transposed(layer: Any) -> bool:
    return not isinstance(layer, torch.nn.Linear)
