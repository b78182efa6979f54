"""LoRA over a 16-bit or a quantised base, by PEFT (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

from typing import Any

from jobs.methods.setup import Setup
from jobs.methods.targets import target_names
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a LoRA adapter; A is drawn from the seed, B is zero, so that step 0 is the base itself.

    `settings`: `rank alpha dropout targets`, resolved by the catalogue. Raises `UserError`.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=target_names(model, settings["targets"], method="lora"),
        bias="none",
    )
    return adapted(model, config, setup, method="lora")
