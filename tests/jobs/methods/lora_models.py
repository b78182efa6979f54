"""A small Llama under the presets of the LoRA family, and what its tests ask of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.methods.lora.layers import lora_layers
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.models.loading import load_model
from jobs.run import apply_method, make_hooks
from tests.jobs.training.reference import make_rows

ROWS = make_rows(12)
IDS = torch.arange(3, 15)[None]


def load(folder: Path, bits: int = 16) -> Any:
    """The base in float32."""
    return load_model(folder, precision="float32", trains_base=False, bits=bits)


def setup(folder: Path, **changes: Any) -> Setup:
    """Seed 3 over `ROWS`."""
    return Setup(**{"seed": 3, "rows": ROWS, "base_folder": folder, "total_steps": 10, **changes})


def adapt(folder: Path, method_id: str, given: Setup | None = None, **settings: Any) -> tuple[Any, Any]:
    """(model, hooks) of a method on a fresh base."""
    method = get_method(method_id)
    resolved = method.resolve(settings)
    told = given or setup(folder)
    model = apply_method(method, load(folder, method.base_bits(resolved)), resolved, told)
    return model, make_hooks(method, model, resolved, told)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """float32 [tokens, vocabulary]."""
    model.eval()
    found: Tensor = model(input_ids=IDS).logits[0].float()
    return found


def stir(model: Any) -> Any:
    """Moves every trained weight, as a training would."""
    generator = torch.Generator().manual_seed(7)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


def base_weights(folder: Path) -> dict[str, Tensor]:
    """The base's weights by the names of its layers, float32 [outputs, inputs]."""
    model = load(folder)
    return {name: module.weight.detach().clone() for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def updates(model: Any) -> dict[str, Tensor]:
    """s B A of every LoRA layer."""
    return {name: layer.get_delta_weight("default").detach() for name, layer in lora_layers(model)}
