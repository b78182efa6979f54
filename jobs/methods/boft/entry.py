"""Catalogue entry of BOFT (torch-free)."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.methods.adapter import Adapter, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.selection import divisor, setting_unfit, targeted
from jobs.methods.settings import TARGETS, base_bits
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

# Of the automatic choice: the paper's blocks are of 4 or 8.
LARGEST_BLOCK = 8

BOFT = Method(
    id="boft",
    name="BOFT",
    family="reparametrisation",
    summary=(
        "OFT by a product of sparse rotations, the factors of a butterfly, and a scale for each output: blocks that are rotated in one "
        "factor are mixed in the next, so few numbers reach the whole width. About twice as slow as LoRA, and for each layer it keeps a "
        "matrix as wide as its inputs, squared. Take it where OFT is too coarse, on a small model."
    ),
    paper="Liu et al., Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization, 2023, arXiv:2311.06243",
    application="jobs.methods.boft.apply:apply",
    adapter="jobs.methods.boft.entry:plan",
    tuner="jobs.methods.boft.kernel",
    learning_rate=1e-3,
    settings=(
        Setting(
            "block_size",
            "Block size",
            "int",
            0,
            "Inputs that are rotated together; it must divide the width of every layer. 4 or 8 is usual. 0 chooses the largest up to "
            f"{LARGEST_BLOCK} that fits.",
            0,
            1024,
        ),
        Setting(
            "factors",
            "Factors",
            "int",
            1,
            "Rotations in a row. One is OFT with a scale. Two to four are the paper's; such an adapter loads outside Graft only where PEFT "
            "can build its CUDA kernel.",
            1,
            8,
        ),
        Setting(
            "dropout", "Dropout", "float", 0.0, "Share of the blocks that are not rotated in a training step. 0 to 0.1 is usual.", 0, 0.9
        ),
        TARGETS,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4), needs=("linear",)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The blocks of each factor, of which the skew-symmetric part counts, and a scale for each output."""
    size = block_size(settings, targeted(frame, settings["targets"], method="boft"))

    def shapes(layer: Layer) -> dict[str, Shape]:
        return {"R": (settings["factors"], layer.inputs // size, size, size), "s": (layer.outputs, 1)}

    return beside(frame, settings, "boft", shapes)


def block_size(settings: Mapping[str, Any], layers: Sequence[Layer]) -> int:
    """The side of a block, chosen where that is left open. Raises `UserError("method_setting")` where it or the factors do not fit."""
    unit = 2 ** (settings["factors"] - 1)  # the last factor mixes blocks this far apart
    if odd := sorted({layer.inputs for layer in layers if layer.inputs % unit}):
        reason = f"is {settings['factors']}, for which {unit} would have to divide this model's widths {odd}"
        raise setting_unfit("boft", "factors", reason)
    units = [layer.inputs // unit for layer in layers]
    return divisor(units, settings["block_size"], at_most=LARGEST_BLOCK, method="boft", setting="block_size")
