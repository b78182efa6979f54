"""AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with its state in float32, to and from named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Parameters = Mapping[str, nn.Parameter]


def make_optimiser(parameters: Parameters, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW, betas 0.9 and 0.999. Decay shrinks matrices alone: biases and norms have no size to keep small."""
    groups = [
        {"params": [parameter for parameter in parameters.values() if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters.values() if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def optimiser_tensors(optimiser: torch.optim.Optimizer, parameters: Parameters) -> dict[str, Tensor]:
    """The state by `<parameter>/<key>`; empty before the first update."""
    return {
        f"{name}/{key}": value.detach().contiguous()
        for name, parameter in parameters.items()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, parameters: Parameters, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimiser_tensors` gave."""
    places = {parameter: place for place, parameter in enumerate(p for group in optimiser.param_groups for p in group["params"])}
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        parameter_name, key = name.rsplit("/", 1)
        state.setdefault(places[parameters[parameter_name]], {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
