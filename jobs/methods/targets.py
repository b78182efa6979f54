"""Which layers of a model a method adapts, found in the model itself and not in a table of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd
from typing import Any

import torch

from jobs.errors import UserError
from jobs.methods.settings import TARGETS

# What a task puts upon the base model: trained whole, never adapted.
_HEADS = ("lm_head", "score", "classifier", "qa_outputs", "classification_head")


def target_names(model: Any, targets: str, *, method: str) -> list[str]:
    """The names of the layers of a transformers model that `targets` (a choice of `TARGETS`) means, heads left out, sorted.

    Raises `UserError("method_setting")` where there is none.
    """
    names = sorted(name for name, _ in linear_layers(model, attention_only=targets == "attention"))
    if not names:
        raise setting_unfit(method, TARGETS.name, "finds no such layer in this model; choose all-linear")
    return names


def setting_unfit(method: str, setting: str, reason: str) -> UserError:
    """The error of a setting whose value this model's shapes do not allow; `reason` goes on after its name."""
    return UserError("method_setting", method=method, setting=setting, reason=reason, where={"field": f"method.settings.{setting}"})


def linear_layers(model: Any, *, attention_only: bool = False) -> Iterator[tuple[str, torch.nn.Module]]:
    """(name, layer) of every linear layer but the heads, 4- and 8-bit ones and GPT-2's `Conv1D` included; `attention_only`: those that lie
    directly in an attention module, whatever the architecture calls them.
    """
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for parent_name, parent in model.named_modules():
        if attention_only and "attention" not in type(parent).__name__.lower():
            continue
        for name, child in parent.named_children():
            full = f"{parent_name}.{name}" if parent_name else name
            if isinstance(child, torch.nn.Linear | Conv1D) and child is not output and not in_head(full):
                yield full, child


def in_head(name: str) -> bool:
    """Whether a module of that name belongs to what a task puts upon the base model."""
    return any(part in _HEADS for part in name.split("."))


def sizes(layer: Any) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer, whatever holds its weight."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)
    rows, columns = layer.weight.shape  # Conv1D keeps its weight transposed
    return int(rows), int(columns)


def divisor(sizes: Iterable[int], chosen: int, *, at_most: int, method: str, setting: str) -> int:
    """A number that divides all `sizes`: `chosen`, or where that is 0 the greatest one up to `at_most`.

    Raises `UserError("method_setting")` where `chosen` does not divide them, with those it does not.
    """
    known = sorted(set(sizes))
    if not chosen:
        common = gcd(*known)
        return max(number for number in range(1, min(at_most, common) + 1) if common % number == 0)
    if odd := [size for size in known if size % chosen]:
        found = ", ".join(str(size) for size in odd)
        raise setting_unfit(
            method, setting, f"is {chosen}, which does not divide this model's layer sizes {found}; 0 chooses one that does"
        )
    return chosen
