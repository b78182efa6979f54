"""SHiRA: a few entries of each weight, chosen at random, are trained, by PEFT."""

from __future__ import annotations

from typing import Any

from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import TARGETS, base_bits
from jobs.methods.setup import Setup

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


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a SHiRA adapter: rank * (in + out) trained entries a layer, all zero, so that step 0 is the base itself.

    Their places are drawn from the run's seed and lie in the adapter's file. Raises `UserError`.
    """
    from peft import ShiraConfig

    from jobs.methods.targets import setting_unfit, sizes, target_names
    from jobs.methods.tuning import adapted

    names, rank = target_names(model, settings["targets"], method="shira"), settings["rank"]
    most = min(inputs * outputs // (inputs + outputs) for inputs, outputs in (sizes(model.get_submodule(name)) for name in names))
    if rank > most:
        raise setting_unfit("shira", "rank", f"is {rank}, which would train more numbers than the smallest layer has; at most {most}")
    config = ShiraConfig(r=rank, random_seed=setup.seed, target_modules=names)
    return adapted(model, config, setup, method="shira")
