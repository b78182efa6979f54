"""Full fine-tuning: every parameter trains."""

from __future__ import annotations

from typing import Any

from jobs.methods.setup import Setup


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """Makes every parameter of `model` trainable and returns it."""
    del settings, setup
    model.requires_grad_(True)
    return model
