"""OFT: the inputs of each layer are rotated, block by block, by PEFT."""

from __future__ import annotations

from typing import Any

from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import TARGETS, base_bits
from jobs.methods.setup import Setup

# Of the automatic choice: PEFT's own default.
LARGEST_BLOCK = 32

OFT = Method(
    id="oft",
    name="OFT",
    family="reparametrisation",
    summary=(
        "Rotates the inputs of each layer, block by block, instead of adding to its weights: angles between neurons stay as they were, so "
        "little of what the model knows is lost. Take it where forgetting is the worry; about as fast as LoRA."
    ),
    paper="Qiu et al., Controlling Text-to-Image Diffusion by Orthogonal Finetuning, 2023, arXiv:2306.07280",
    application="jobs.methods.oft:apply",
    learning_rate=5e-4,
    settings=(
        Setting(
            "block_size",
            "Block size",
            "int",
            0,
            "Inputs that are rotated together; it must divide the width of every layer. Larger blocks learn more. 0 chooses the largest up "
            f"to {LARGEST_BLOCK} that fits.",
            0,
            1024,
        ),
        Setting(
            "share_blocks", "One rotation for all blocks", "bool", False, "All blocks of a layer share one rotation: far fewer numbers."
        ),
        Setting(
            "cayley_neumann",
            "Rotation by series",
            "bool",
            True,
            "Computes the rotation by the first terms of a series: faster, and close to orthogonal while it is small. Off solves exactly.",
        ),
        TARGETS,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4), needs=("linear",)),
)


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with an OFT adapter, W R, R block-diagonal by the Cayley transform of skew-symmetric blocks, which start at zero: R is one.

    Raises `UserError`.
    """
    from peft import OFTConfig

    from jobs.methods.targets import divisor, sizes, target_names
    from jobs.methods.tuning import adapted

    names = target_names(model, settings["targets"], method="oft")
    inputs = [sizes(model.get_submodule(name))[0] for name in names]
    config = OFTConfig(
        r=0,
        oft_block_size=divisor(inputs, settings["block_size"], at_most=LARGEST_BLOCK, method="oft", setting="block_size"),
        block_share=settings["share_blocks"],
        use_cayley_neumann=settings["cayley_neumann"],
        target_modules=names,
    )
    return adapted(model, config, setup, method="oft")
