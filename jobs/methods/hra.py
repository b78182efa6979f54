"""HRA: the inputs of each layer go through a chain of trained reflections, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.selection import setting_unfit
from jobs.methods.settings import TARGETS
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.models.frame import Frame, Layer

HRA = Method(
    id="hra",
    name="HRA",
    family="reparametrisation",
    summary=(
        "Sends the inputs of each layer through a chain of learned mirror reflections: at once a rotation, as in OFT, and an update of low "
        "rank, as in LoRA, with half of LoRA's trained numbers. Take it as OFT; a step takes about 1.7 times as long as with LoRA."
    ),
    paper=(
        "Yuan et al., Bridging The Gap between Low-rank and Orthogonal Adaptation via Householder Reflection Adaptation, 2024, "
        "arXiv:2405.17484"
    ),
    application="jobs.methods.hra:apply",
    adapter="jobs.methods.hra:plan",
    learning_rate=1e-3,
    settings=(
        Setting("rank", "Reflections", "int", 8, "How many for each layer; an even number. 8 to 32 is usual.", 2, 1024),
        TARGETS,
    ),
    # Over 8 bits PEFT would compute with the codes as if they were weights; over 4 it fails.
    capabilities=Capabilities(bases=(16,), needs=("linear",)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The vectors u_i of each layer. Raises `UserError("method_setting")` where they are not in pairs."""
    rank = settings["rank"]
    if rank % 2:
        raise setting_unfit("hra", "rank", f"is {rank}; pairs of reflections begin alike, so it must be even")

    def keeps(layer: Layer) -> Keeps:
        """Each reflection and each product of them as a matrix, and the weight that they turn."""
        return Keeps(made=layer.inputs**2 * (rank + 1) + layer.numbers, reads=True)

    return beside(frame, settings, "hra", lambda layer: {"u": (layer.inputs, rank)}, keeps)


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with an HRA adapter, W H_1 ... H_r, H_i = 1 - 2 u_i u_i' / |u_i|^2; u_i are alike in pairs, which makes their product one.

    Raises `UserError`.
    """
    from peft import HRAConfig

    from jobs.methods.tuning import adapted

    layers = plan(settings, frame_of(model)).layers
    config = HRAConfig(r=settings["rank"], target_modules=[layer.name for layer in layers])
    return adapted(model, config, setup, method="hra")
