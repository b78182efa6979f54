"""Prefix tuning upon a model: keys and values before each row, by PEFT, starting from those of a real text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jobs.errors import UserError
from jobs.methods.prompts.starts import start_ids
from jobs.methods.setup import Setup
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a prefix before each row, which is at first what the model itself keeps of some real tokens.

    So the first outputs are those of the model behind that text; PEFT's random start triples the loss. Li and Liang, section 7.4, find
    real words best to start from. Raises `UserError`.
    """
    from peft import PrefixTuningConfig

    ids = start_ids(settings, setup, method="prefix_tuning")
    cache = cached(model, ids.to(model.device))
    prefixed = adapted(model, PrefixTuningConfig(num_virtual_tokens=len(ids)), setup, method="prefix_tuning")
    encoder = prefixed.prompt_encoder["default"]
    if cache.shape != encoder.embedding.weight.shape:
        raise UserError(
            "method_cannot", method="Prefix tuning", reason="its layers keep keys and values of several shapes",
            instead="Choose prompt tuning or LoRA.", where={"field": "method.id"},
        )  # fmt: skip
    encoder.load_prompt_embeddings(cache)
    return prefixed


@torch.no_grad()
def cached(model: Any, ids: Tensor) -> Tensor:
    """[tokens, layers * 2 * key-value width]: the keys and values of each layer for `ids` int64 [tokens], as PEFT lays a prefix out."""
    layers = model(input_ids=ids[None], use_cache=True).past_key_values.layers
    kept = [states[0].transpose(0, 1).flatten(1) for layer in layers for states in (layer.keys, layer.values)]
    return torch.cat(kept, dim=1)
