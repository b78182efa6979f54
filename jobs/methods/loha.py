"""LoHa: the update is the elementwise product of two low-rank matrices, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import ROW_DROPOUT, TARGETS, base_bits
from jobs.methods.setup import Setup
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

LOHA = Method(
    id="loha",
    name="LoHa",
    family="reparametrisation",
    summary=(
        "Like LoRA, but the update is the elementwise product of two low-rank matrices, whose rank may reach the square of the setting. "
        "Twice LoRA's trained numbers at the same rank. Take it where LoRA of a small rank is too stiff; a step is slower, since the "
        "update is made whole for each layer."
    ),
    paper="Hyeon-Woo et al., FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning, 2021, arXiv:2108.06098",
    application="jobs.methods.loha:apply",
    adapter="jobs.methods.loha:plan",
    learning_rate=1e-2,
    settings=(
        Setting(
            "rank", "Rank", "int", 8, "Width of the four factors; the update's own rank is up to its square. 4 to 16 is usual.", 1, 256
        ),
        Setting("alpha", "Alpha", "float", 8, "The update is scaled by alpha / rank. As much as the rank is usual.", 0.001, 4096),
        ROW_DROPOUT,
        TARGETS,
        base_bits(16, 8),
    ),
    capabilities=Capabilities(bases=(16, 8), needs=("linear",)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The two pairs of factors of each layer."""
    rank = settings["rank"]

    def shapes(layer: Layer) -> dict[str, Shape]:
        return {f"w{each}_{half}": shape for each in (1, 2) for half, shape in (("a", (layer.outputs, rank)), ("b", (rank, layer.inputs)))}

    # the update is made whole
    return beside(frame, settings, "loha", shapes, lambda layer: Keeps(made=layer.numbers, reads=True))


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a LoHa adapter, (w1_a w1_b) * (w2_a w2_b) * alpha / rank; w2_b is zero, so that step 0 is the base itself.

    Raises `UserError`.
    """
    from peft import LoHaConfig

    from jobs.methods.targets import target_names
    from jobs.methods.tuning import adapted

    config = LoHaConfig(
        r=settings["rank"],
        alpha=settings["alpha"],
        rank_dropout=settings["dropout"],
        target_modules=target_names(model, settings["targets"], method="loha"),
    )
    return adapted(model, config, setup, method="loha")
