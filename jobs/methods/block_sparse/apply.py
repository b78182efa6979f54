"""A block-sparse update beside each chosen layer."""

from __future__ import annotations

from typing import Any

from jobs.methods.setup import Setup
from jobs.methods.targets import target_names
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with block-sparse adapters. Scores are drawn from the seed, values are zero, so that step 0 is the base itself.

    `settings`: `block_rows block_columns blocks alpha targets`, resolved by the catalogue. Raises `UserError`.
    """
    from jobs.methods.block_sparse.tuner import BlockSparseConfig

    config = BlockSparseConfig(
        n=settings["block_rows"],
        m=settings["block_columns"],
        k=settings["blocks"],
        alpha=settings["alpha"],
        target_modules=target_names(model, settings["targets"], method="block_sparse"),
    )
    return adapted(model, config, setup, method="block_sparse")
