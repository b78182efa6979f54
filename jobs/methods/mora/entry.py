"""Catalogue entry of MoRA (torch-free)."""

from collections.abc import Mapping
from math import ceil, isqrt
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.selection import setting_unfit
from jobs.methods.settings import TARGETS, base_bits
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

MORA = Method(
    id="mora",
    name="MoRA",
    family="low-rank",
    summary=(
        "Learns one square matrix beside each linear layer in the place of LoRA's two thin ones: as many numbers, but an update of much "
        "higher rank. Inputs are folded to the matrix's width and outputs unfolded by fixed rules, so it merges as LoRA does. Take it "
        "where a model is to learn new facts or go on with pretraining; for style and format LoRA does as well."
    ),
    paper="Jiang et al., MoRA: High-Rank Updating for Parameter-Efficient Fine-Tuning, 2024, arXiv:2405.12130",
    application="jobs.methods.mora.apply:apply",
    adapter="jobs.methods.mora.entry:plan",
    learning_rate=3e-4,
    settings=(
        Setting(
            "rank",
            "Rank",
            "int",
            8,
            "The rank of the LoRA that would train as many numbers: the square matrix has the side sqrt((inputs + outputs) * rank). "
            "8 to 256 is usual.",
            1,
            1024,
        ),
        Setting(
            "operator",
            "Folding",
            "choice",
            "rotation",
            "How inputs are folded to the matrix's width. Rotation tells the parts of an input apart and is better at small ranks (8); "
            "sharing adds them up, and is enough at large ones (128 and more).",
            choices=("rotation", "sharing"),
        ),
        TARGETS,
        base_bits(16, 8, 4),
    ),
    tuner="jobs.methods.mora.tuner",
    capabilities=Capabilities(bases=(16, 8, 4)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The matrix M of each layer. Raises `UserError("method_setting")` where a layer is too small for one."""

    def shapes(layer: Layer) -> dict[str, Shape]:
        try:
            size = side(layer.inputs, layer.outputs, settings["rank"], rotates=settings["operator"] == "rotation")
        except ValueError as small:
            raise setting_unfit("mora", "operator", f"cannot be rotation here: {small}") from None
        return {"matrix": (size, size)}

    def keeps(layer: Layer) -> Keeps:
        """The folded inputs; M rotated for each of the folds."""
        (size, _), rotates = shapes(layer)["matrix"], settings["operator"] == "rotation"
        folds = ceil(layer.inputs / size)
        return Keeps(token=folds * size, made=folds * size * size) if rotates else Keeps(token=size, copied=size * size)

    return beside(frame, settings, "mora", shapes, keeps)


def side(inputs: int, outputs: int, rank: int, *, rotates: bool) -> int:
    """The side s of M for a layer of these sizes. Raises `ValueError` where nothing is left of it."""
    found = min(isqrt((inputs + outputs) * rank), inputs, outputs)
    found -= found % 2 if rotates else 0
    if not found:
        raise ValueError(f"a layer of {outputs} x {inputs} is too small to rotate")
    return found
