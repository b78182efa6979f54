"""OFT: the inputs of each layer are rotated, block by block, by PEFT."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.selection import divisor, targeted
from jobs.methods.settings import TARGETS, base_bits
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.models.frame import Frame, Layer

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
    adapter="jobs.methods.oft:plan",
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


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The numbers above the diagonal of each skew-symmetric block."""
    size = _block_size(settings, targeted(frame, settings["targets"], method="oft"))
    shared = settings["share_blocks"]

    def keeps(layer: Layer) -> Keeps:
        """The blocks themselves, and five powers of them that make the series, with what two of their products read."""
        return Keeps(made=7 * size * (size if shared else layer.inputs), reads=True, casts=True)

    return beside(frame, settings, "oft", lambda layer: {"R": (1 if shared else layer.inputs // size, size * (size - 1) // 2)}, keeps)


def _block_size(settings: Mapping[str, Any], layers: Iterable[Layer]) -> int:
    inputs = [layer.inputs for layer in layers]
    return divisor(inputs, settings["block_size"], at_most=LARGEST_BLOCK, method="oft", setting="block_size")


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with an OFT adapter, W R, R block-diagonal by the Cayley transform of skew-symmetric blocks, which start at zero: R is one.

    Raises `UserError`.
    """
    from peft import OFTConfig

    from jobs.methods.tuning import adapted

    layers = targeted(frame_of(model), settings["targets"], method="oft")
    config = OFTConfig(
        r=0,
        oft_block_size=_block_size(settings, layers),
        block_share=settings["share_blocks"],
        use_cayley_neumann=settings["cayley_neumann"],
        target_modules=[layer.name for layer in layers],
    )
    return adapted(model, config, setup, method="oft")
