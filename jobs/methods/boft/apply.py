"""BOFT upon a model, by PEFT (Liu et al. 2023, arXiv:2311.06243)."""

from __future__ import annotations

from typing import Any

from peft import BOFTConfig

import jobs.methods.boft.kernel  # noqa: F401  takes its place in PEFT
from jobs.methods.boft.entry import LARGEST_BLOCK
from jobs.methods.setup import Setup
from jobs.methods.targets import divisor, setting_unfit, sizes, target_names
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a BOFT adapter, s * (W R_m ... R_1), R_i block-diagonal by the Cayley transform between two permutations; all R_i
    and s start at one. Raises `UserError`.
    """
    names = target_names(model, settings["targets"], method="boft")
    inputs = [sizes(model.get_submodule(name))[0] for name in names]
    block, factors = settings["block_size"], settings["factors"]
    unit = 2 ** (factors - 1)  # the last factor mixes blocks this far apart
    if odd := sorted({width for width in inputs if width % unit}):
        raise setting_unfit("boft", "factors", f"is {factors}, for which {unit} would have to divide this model's widths {odd}")
    block = divisor([width // unit for width in inputs], block, at_most=LARGEST_BLOCK, method="boft", setting="block_size")
    config = BOFTConfig(boft_block_size=block, boft_n_butterfly_factor=factors, boft_dropout=settings["dropout"], target_modules=names)
    return adapted(model, config, setup, method="boft")
