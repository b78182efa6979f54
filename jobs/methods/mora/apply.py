"""A square matrix beside each chosen layer."""

from __future__ import annotations

from typing import Any

from jobs.methods.setup import Setup
from jobs.methods.targets import target_names
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with MoRA adapters; the matrices are zero, so that step 0 is the base itself.

    `settings`: `rank operator targets`, resolved by the catalogue. Raises `UserError`.
    """
    from jobs.methods.mora.tuner import MoraConfig

    config = MoraConfig(
        r=settings["rank"], operator=settings["operator"], target_modules=target_names(model, settings["targets"], method="mora")
    )
    return adapted(model, config, setup, method="mora")
