"""SHiRA: a few entries of each weight, chosen at random, are trained, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.selection import setting_unfit
from jobs.methods.settings import TARGETS, base_bits
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.models.frame import Frame, Layer

SHIRA = Method(
    id="shira",
    name="SHiRA",
    family="sparse",
    summary=(
        "Trains one to a few percent of the entries of each weight, at random places, and leaves the rest. The update has high rank, and "
        "two such adapters hardly disturb each other. Take it where several adapters are to be added up later."
    ),
    paper="Bhardwaj et al., Sparse High Rank Adapters, 2024, arXiv:2406.13175",
    application="jobs.methods.shira:apply",
    adapter="jobs.methods.shira:plan",
    learning_rate=5e-4,
    settings=(
        Setting(
            "rank", "As many as LoRA of rank", "int", 16, "Trains as many numbers as LoRA of this rank would. 8 to 64 is usual.", 1, 1024
        ),
        TARGETS,
        base_bits(16, 8),
    ),
    # Over 4 bits the weight comes back in the dtype that it was quantised from, whatever the arithmetic of the moment is.
    capabilities=Capabilities(bases=(16, 8), needs=("linear",)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The trained entries of each layer. Raises `UserError("method_setting")` where a layer has fewer."""
    rank = settings["rank"]

    def keeps(layer: Layer) -> Keeps:
        """The weight with its entries, made whole, and the entries as a sparse matrix: a place of two int64 and a number each."""
        return Keeps(made=layer.numbers, made_wide=5 * rank * (layer.inputs + layer.outputs), reads=True)

    adapter = beside(frame, settings, "shira", lambda layer: {"entries": (rank * (layer.inputs + layer.outputs),)}, keeps)
    most = min(layer.numbers // (layer.inputs + layer.outputs) for layer in adapter.layers)
    if rank > most:
        raise setting_unfit("shira", "rank", f"is {rank}, which would train more numbers than the smallest layer has; at most {most}")
    return replace(adapter, frozen=2 * adapter.numbers)  # their places, int32


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a SHiRA adapter: rank * (in + out) trained entries a layer, all zero, so that step 0 is the base itself.

    Their places are drawn from the run's seed and lie in the adapter's file. Raises `UserError`.
    """
    from peft import ShiraConfig

    from jobs.methods.tuning import adapted

    layers = plan(settings, frame_of(model)).layers
    config = ShiraConfig(r=settings["rank"], random_seed=setup.seed, target_modules=[layer.name for layer in layers])
    return adapted(model, config, setup, method="shira")
