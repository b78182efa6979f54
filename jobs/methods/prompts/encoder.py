"""P-tuning upon a model: virtual tokens that come out of a small network, by PEFT."""

from __future__ import annotations

from typing import Any

from jobs.methods.setup import Setup
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with the network's virtual tokens before each row. Raises `UserError`.

    A checkpoint keeps tokens and network; the adapter holds what the network makes of the tokens, which is all that is used afterwards.
    """
    from peft import PromptEncoderConfig

    config = PromptEncoderConfig(
        num_virtual_tokens=settings["virtual_tokens"],
        encoder_reparameterization_type=settings["network"],
        encoder_hidden_size=settings["size"],
    )
    return adapted(model, config, setup, method="p_tuning")
