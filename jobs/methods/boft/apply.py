"""BOFT upon a model, by PEFT (Liu et al. 2023, arXiv:2311.06243)."""

from __future__ import annotations

from typing import Any

from peft import BOFTConfig

import jobs.methods.boft.kernel  # noqa: F401  takes its place in PEFT
from jobs.methods.boft.entry import block_size
from jobs.methods.selection import targeted
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a BOFT adapter, s * (W R_m ... R_1), R_i block-diagonal by the Cayley transform between two permutations; all R_i
    and s start at one. Raises `UserError`.
    """
    layers = targeted(frame_of(model), settings["targets"], method="boft")
    config = BOFTConfig(
        boft_block_size=block_size(settings, layers),
        boft_n_butterfly_factor=settings["factors"],
        boft_dropout=settings["dropout"],
        target_modules=[layer.name for layer in layers],
    )
    return adapted(model, config, setup, method="boft")
