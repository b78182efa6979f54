"""Prompt tuning upon a model: the embeddings of virtual tokens, by PEFT, from a start of our own choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jobs.methods.prompts.starts import start_ids
from jobs.methods.setup import Setup
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with virtual tokens before each row. Raises `UserError`.

    The start is ours: PEFT would read a tokenizer by its path, and draws random tokens far wider than a model's embeddings.
    """
    from peft import PromptTuningConfig

    embeddings = model.get_input_embeddings()
    if settings["start"] == "random":
        start = drawn_like(embeddings.weight, int(settings["virtual_tokens"]), setup.seed)
    else:
        with torch.no_grad():  # through the layer, since some architectures scale what it gives
            start = embeddings(start_ids(settings, setup, method="prompt_tuning").to(embeddings.weight.device))
    prompted = adapted(model, PromptTuningConfig(num_virtual_tokens=len(start)), setup, method="prompt_tuning")
    with torch.no_grad():
        prompted.prompt_encoder["default"].embedding.weight.copy_(start)
    return prompted


def drawn_like(weight: Tensor, count: int, seed: int) -> Tensor:
    """float32 [count, width]: normal numbers with each coordinate's mean and spread among the rows of `weight`."""
    known = weight.detach().float()
    noise = torch.randn(count, known.shape[1], generator=torch.Generator().manual_seed(seed)).to(known.device)
    return known.mean(0) + noise * known.std(0)
