"""LoRA over a 16-bit or a 4-bit base, by PEFT (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

from typing import Any

import torch

from jobs.errors import UserError


def apply(model: Any, settings: dict[str, Any], *, seed: int) -> Any:
    """The model with a LoRA adapter, its matrices in float32; A is drawn from `seed`, B is zero, so that step 0 is the base itself.

    `settings`: `rank alpha dropout targets`, resolved by the catalogue. Raises `UserError("method_setting")`.
    """
    from peft import LoraConfig, get_peft_model

    targets = "all-linear" if settings["targets"] == "all-linear" else _attention_layers(model)
    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    return get_peft_model(model, config, autocast_adapter_dtype=True)


def _attention_layers(model: Any) -> list[str]:
    """The names of the linear layers that lie directly in an attention module, whatever the architecture calls them."""
    from transformers.pytorch_utils import Conv1D

    names = sorted(
        f"{parent_name}.{name}"
        for parent_name, parent in model.named_modules()
        if "attention" in type(parent).__name__.lower()
        for name, child in parent.named_children()
        if isinstance(child, torch.nn.Linear | Conv1D)
    )
    if not names:
        raise UserError(
            "method_setting",
            method="lora",
            setting="targets",
            reason="finds no attention layer in this model; choose all-linear",
            where={"field": "method.settings.targets"},
        )
    return names
