"""The frame of a loaded model: which layers a method adapts is found in the model itself and not in a table of names.

The choice is made upon a `Frame` (`jobs.methods.selection`), which is known from the files before a launch too: so both see the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jobs.methods.selection import targeted
from jobs.models.frame import Frame, Layer, Norm, in_head
from jobs.models.heads import fresh_heads

if TYPE_CHECKING:
    import torch


def target_names(model: Any, targets: str, *, method: str) -> list[str]:
    """The names of the layers of a transformers model that `targets` means, sorted. Raises what `targeted` raises."""
    return [layer.name for layer in targeted(frame_of(model), targets, method=method)]


def frame_of(model: Any) -> Frame:
    """The frame of a loaded transformers model; an attention is a module whose class is called so, whatever the architecture calls it."""
    modules, heads = dict(model.named_modules()), fresh_heads(model)
    attentions = {name for name, module in modules.items() if "attention" in type(module).__name__.lower()}
    config = model.config.get_text_config()
    count = getattr(config, "num_attention_heads", 1)
    head_width = getattr(config, "head_dim", None) or getattr(config, "d_kv", None) or config.hidden_size // count
    norms = {name: module for name, module in modules.items() if _is_norm(module) and not in_head(name, heads)}
    return Frame(
        kind=model.config.model_type,
        layers=tuple(_layer(name, layer, attentions) for name, layer in linear_layers(model) if not in_head(name, heads)),
        norms=tuple(Norm(name, norm.weight.numel(), _is_biased(norm)) for name, norm in norms.items()),
        tensors={name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
        head={name: sum(parameter.numel() for parameter in modules[name].parameters()) for name in heads},
        width=int(config.hidden_size),
        depth=int(config.num_hidden_layers),
        cached=int((getattr(config, "num_key_value_heads", None) or count) * head_width),
    )


def _layer(name: str, layer: torch.nn.Module, attentions: set[str]) -> Layer:
    parents = name.split(".")[:-1]
    above = [place for place in (".".join(parents[:depth]) for depth in range(1, len(parents) + 1)) if place in attentions]
    return Layer(name, *sizes(layer), _is_biased(layer), ".".join(parents) in attentions, above[0] if above else "")


def _is_biased(layer: Any) -> bool:
    return getattr(layer, "bias", None) is not None


def _is_norm(module: Any) -> bool:
    """A module without parts whose class is called so (LayerNorm, LlamaRMSNorm, T5LayerNorm) and that has a weight."""
    named = "norm" in type(module).__name__.lower() and getattr(module, "weight", None) is not None
    return named and not list(module.children())


def linear_layers(model: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """(name, layer) of every linear layer but the heads, 4- and 8-bit ones and GPT-2's `Conv1D` included."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not output and not in_head(name):
            yield name, module


def sizes(layer: Any) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer, whatever holds its weight."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)
    rows, columns = layer.weight.shape  # Conv1D keeps its weight transposed
    return int(rows), int(columns)
