"""FourierFT: a few coefficients of the update's spectrum are trained, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.selection import setting_unfit
from jobs.methods.settings import TARGETS, base_bits
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.models.frame import Frame, Layer

FOURIERFT = Method(
    id="fourierft",
    name="FourierFT",
    family="reparametrisation",
    summary=(
        "Learns the update of each layer as a few coefficients of its Fourier spectrum, at random places. Very few trained numbers that "
        "reach the whole matrix. Take it where the adapter must be tiny; the update is made whole in each step, which costs time."
    ),
    paper="Gao et al., Parameter-Efficient Fine-Tuning with Discrete Fourier Transform, 2024, arXiv:2405.03003",
    application="jobs.methods.fourierft:apply",
    adapter="jobs.methods.fourierft:plan",
    learning_rate=1e-2,
    settings=(
        Setting("frequencies", "Coefficients", "int", 1000, "Trained numbers for each layer. 200 to 4000 is usual.", 1, 1_000_000),
        Setting("scaling", "Scaling", "float", 150, "The update is multiplied by this. 100 to 300 is usual.", 0.001, 10_000),
        Setting(
            "start",
            "Start",
            "choice",
            "zero",
            "Zero begins at the base itself. Normal draws the coefficients, as the paper does: the model is first changed at random.",
            choices=("zero", "normal"),
        ),
        TARGETS,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The coefficients of each layer. Raises `UserError("method_setting")` where a layer has fewer weights."""
    adapter = beside(frame, settings, "fourierft", lambda _layer: {"spectrum": (settings["frequencies"],)}, _keeps)
    smallest = min(layer.numbers for layer in adapter.layers)
    if settings["frequencies"] > smallest:
        reason = f"is {settings['frequencies']}, but the smallest layer has only {smallest} weights"
        raise setting_unfit("fourierft", "frequencies", reason)
    return adapter


def _keeps(layer: Layer) -> Keeps:
    """The update, made whole."""
    return Keeps(made=layer.numbers, reads=True, casts=True)


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a FourierFT adapter, scaling * Re(ifft2(F)), F zero but for the coefficients at places drawn from the run's seed.

    The seed stands in the adapter's config, from which PEFT draws the same places again. Raises `UserError`.
    """
    from peft import FourierFTConfig

    from jobs.methods.tuning import adapted

    config = FourierFTConfig(
        n_frequency=settings["frequencies"],
        scaling=settings["scaling"],
        random_loc_seed=setup.seed,
        init_weights=settings["start"] == "zero",
        target_modules=[layer.name for layer in plan(settings, frame_of(model)).layers],
    )
    return adapted(model, config, setup, method="fourierft")
