"""RandLoRA: scaled sums of frozen random low-rank matrices, together of full rank, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import INPUT_DROPOUT, TARGETS, base_bits
from jobs.methods.setup import Setup
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

RANDLORA = Method(
    id="randlora",
    name="RandLoRA",
    family="reparametrisation",
    summary=(
        "Adds many frozen random low-rank matrices, shared by all layers, each scaled by trained vectors: an update of full rank from few "
        "trained numbers. Take it where LoRA's rank is the limit. The random matrices lie in the adapter's file, which makes it large."
    ),
    paper="Albert et al., RandLoRA: Full-rank parameter-efficient fine-tuning of large models, 2025, arXiv:2502.00987",
    application="jobs.methods.randlora:apply",
    adapter="jobs.methods.randlora:plan",
    learning_rate=1e-3,
    settings=(
        Setting(
            "rank",
            "Rank of each base",
            "int",
            32,
            "Rank of one random matrix; a layer adds up as many as make its full rank. A smaller rank means more of them, and more trained "
            "numbers. 6 to 32 is usual.",
            1,
            1024,
        ),
        Setting("alpha", "Alpha", "float", 640, "The update is scaled by alpha / rank. Twenty times the rank is usual.", 0.001, 65_536),
        Setting(
            "bases",
            "Random matrices",
            "choice",
            "dense",
            "Dense draws every entry; sparse has two thirds zeros; very sparse nearly all. They cost the same here.",
            choices=("dense", "sparse", "very sparse"),
        ),
        INPUT_DROPOUT,
        TARGETS,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The diagonals L and G of each layer's random matrices."""
    rank = settings["rank"]

    def shapes(layer: Layer) -> dict[str, Shape]:
        narrow = min(layer.inputs, layer.outputs)
        bases = ceil(narrow / rank)
        return {"lambda": (rank, bases), "gamma": (bases, narrow)}

    def keeps(layer: Layer) -> Keeps:
        """The inputs times the random matrices, these themselves, side by side, and those that L and G scale."""
        narrow, wide = sorted((layer.inputs, layer.outputs))
        ranks = rank * ceil(narrow / rank)
        return Keeps(token=ranks, made=ranks * narrow, copied=ranks * wide)

    found = beside(frame, settings, "randlora", shapes, keeps)
    narrow, wide = (max(size(layer.inputs, layer.outputs) for layer in found.layers) for size in (min, max))
    return replace(found, frozen=rank * ceil(narrow / rank) * (narrow + wide))


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a RandLoRA adapter, the sum over j of B_j L_j A_j G_j; L is zero, so that step 0 is the base itself.

    A and B are drawn from the run's seed and lie in the adapter's file, so that they come back bit for bit. Raises `UserError`.
    """
    from peft import RandLoraConfig

    from jobs.methods.targets import target_names
    from jobs.methods.tuning import adapted

    config = RandLoraConfig(
        r=settings["rank"],
        randlora_alpha=settings["alpha"],
        randlora_dropout=settings["dropout"],
        sparse=settings["bases"] == "sparse",
        very_sparse=settings["bases"] == "very sparse",
        projection_prng_key=setup.seed,
        save_projection=True,
        target_modules=target_names(model, settings["targets"], method="randlora"),
    )
    return adapted(model, config, setup, method="randlora")
