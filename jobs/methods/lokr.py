"""LoKr: the update is the Kronecker product of two small matrices, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import ROW_DROPOUT, TARGETS, base_bits
from jobs.methods.setup import Setup
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

LOKR = Method(
    id="lokr",
    name="LoKr",
    family="reparametrisation",
    summary=(
        "The update is the Kronecker product of a small matrix and a low-rank one. Very few trained numbers for an update of high rank, so "
        "the adapter is a tiny file. Take it where many adapters are kept, or where LoRA learns the training rows by heart."
    ),
    paper="Yeh et al., Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation, 2023, arXiv:2309.14859",
    application="jobs.methods.lokr:apply",
    adapter="jobs.methods.lokr:plan",
    learning_rate=5e-3,
    settings=(
        Setting("rank", "Rank", "int", 8, "Width of the second factor's own two factors; 4 to 32 is usual.", 1, 1024),
        Setting("alpha", "Alpha", "float", 8, "The update is scaled by alpha / rank. As much as the rank is usual.", 0.001, 4096),
        Setting(
            "factor",
            "Size of the first matrix",
            "int",
            0,
            "A layer's sizes are split into two factors each, the first near this number. 0 splits near the square root: fewest numbers. "
            "4 to 16 trains more.",
            0,
            256,
        ),
        Setting(
            "decompose_both",
            "First matrix of low rank too",
            "bool",
            False,
            "Factorises the first matrix as well, where it is large enough.",
        ),
        ROW_DROPOUT,
        TARGETS,
        base_bits(16, 8),
    ),
    capabilities=Capabilities(bases=(16, 8), needs=("linear",)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The two matrices of each layer, each whole where that is no larger than its two factors would be."""
    rank, both = settings["rank"], settings["decompose_both"]

    def shapes(layer: Layer) -> dict[str, Shape]:
        rows, columns = split(layer.outputs, settings["factor"]), split(layer.inputs, settings["factor"])
        first, second = (rows[0], columns[0]), (rows[1], columns[1])
        return _matrix("w1", first, rank if both else max(first)) | _matrix("w2", second, rank)

    # the update is made whole
    return beside(frame, settings, "lokr", shapes, lambda layer: Keeps(made=layer.numbers, reads=True, casts=True))


def _matrix(name: str, size: tuple[int, int], rank: int) -> dict[str, Shape]:
    """One matrix, or its factors where their rank is below half of its larger side."""
    if 2 * rank >= max(size):
        return {name: size}
    return {f"{name}_a": (size[0], rank), f"{name}_b": (rank, size[1])}


def split(size: int, wanted: int) -> tuple[int, int]:
    """Two factors of `size`: the first is `wanted` where that divides it; else the divisor whose pair has the least sum, the first at most
    `wanted` (0: any, so that both are near the square root).
    """
    if wanted and size % wanted == 0:
        return wanted, size // wanted
    most = min(wanted or size, isqrt(size))
    first = max(number for number in range(1, most + 1) if size % number == 0)
    return first, size // first


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a LoKr adapter, kron(w1, w2) * alpha / rank; w1 is zero, so that step 0 is the base itself.

    Raises `UserError`.
    """
    from peft import LoKrConfig

    from jobs.methods.targets import target_names
    from jobs.methods.tuning import adapted

    config = LoKrConfig(
        r=settings["rank"],
        alpha=settings["alpha"],
        rank_dropout=settings["dropout"],
        decompose_factor=settings["factor"] or -1,
        decompose_both=settings["decompose_both"],
        target_modules=target_names(model, settings["targets"], method="lokr"),
    )
    return adapted(model, config, setup, method="lokr")
