"""HRA: the inputs of each layer go through a chain of trained reflections, by PEFT."""

from __future__ import annotations

from typing import Any

from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import TARGETS
from jobs.methods.setup import Setup

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
    learning_rate=1e-3,
    settings=(
        Setting("rank", "Reflections", "int", 8, "How many for each layer; an even number. 8 to 32 is usual.", 2, 1024),
        TARGETS,
    ),
    # Over 8 bits PEFT would compute with the codes as if they were weights; over 4 it fails.
    capabilities=Capabilities(bases=(16,), needs=("linear",)),
)


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with an HRA adapter, W H_1 ... H_r, H_i = 1 - 2 u_i u_i' / |u_i|^2; u_i are alike in pairs, which makes their product one.

    Raises `UserError`.
    """
    from peft import HRAConfig

    from jobs.methods.targets import setting_unfit, target_names
    from jobs.methods.tuning import adapted

    if settings["rank"] % 2:
        raise setting_unfit("hra", "rank", f"is {settings['rank']}; pairs of reflections begin alike, so it must be even")
    config = HRAConfig(r=settings["rank"], target_modules=target_names(model, settings["targets"], method="hra"))
    return adapted(model, config, setup, method="hra")
