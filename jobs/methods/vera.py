"""VeRA: one pair of frozen random matrices for all layers, and two trained vectors for each, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import INPUT_DROPOUT, TARGETS, base_bits
from jobs.methods.setup import Setup
from jobs.models.frame import Frame, Layer

VERA = Method(
    id="vera",
    name="VeRA",
    family="reparametrisation",
    summary=(
        "All layers share one pair of random matrices that stay as they are; each layer learns two vectors that scale them. About a tenth "
        "of LoRA's trained numbers. Take it where the adapter must be small; it wants a higher rank and learning rate than LoRA."
    ),
    paper="Kopiczko et al., VeRA: Vector-based Random Matrix Adaptation, 2023, arXiv:2310.11454",
    application="jobs.methods.vera:apply",
    adapter="jobs.methods.vera:plan",
    learning_rate=5e-2,
    settings=(
        Setting("rank", "Rank", "int", 256, "Width of the shared random matrices. 256 to 1024 is usual.", 1, 8192),
        Setting(
            "start", "Start of d", "float", 0.1, "What the inner vector starts at; the outer one starts at zero. 0.1 is usual.", 1e-7, 10
        ),
        INPUT_DROPOUT,
        TARGETS,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The vectors b and d of each layer; the random matrices are frozen."""
    rank = settings["rank"]

    def keeps(layer: Layer) -> Keeps:
        """What b and d scale, and for each layer its parts of A and B, narrow."""
        return Keeps(token=rank + layer.outputs, copied=rank * (layer.inputs + layer.outputs))

    found = beside(frame, settings, "vera", lambda layer: {"b": (layer.outputs,), "d": (rank,)}, keeps)
    widest = max(layer.inputs for layer in found.layers) + max(layer.outputs for layer in found.layers)
    return replace(found, frozen=rank * widest)


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a VeRA adapter, (b * B) (d * A); b is zero, so that step 0 is the base itself.

    A and B are drawn from the run's seed and lie in the adapter's file, so that they come back bit for bit. Raises `UserError`.
    """
    from peft import VeraConfig

    from jobs.methods.targets import target_names
    from jobs.methods.tuning import adapted

    config = VeraConfig(
        r=settings["rank"],
        d_initial=settings["start"],
        vera_dropout=settings["dropout"],
        projection_prng_key=setup.seed,
        save_projection=True,
        target_modules=target_names(model, settings["targets"], method="vera"),
    )
    return adapted(model, config, setup, method="vera")
