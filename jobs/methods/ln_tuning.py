"""Layer norm tuning: the norms' own weights are trained, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.errors import UserError
from jobs.methods.adapter import Adapter, Keeps
from jobs.methods.entry import Capabilities, Method
from jobs.methods.settings import base_bits
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.models.frame import Frame

LN_TUNING = Method(
    id="ln_tuning",
    name="Layer norm tuning",
    family="selective",
    summary=(
        "Trains the weights of the normalisation layers alone, a few ten thousand numbers. Fast, hardly any memory, and no layer is added. "
        "Take it to set a tone or a format; it cannot learn much that is new."
    ),
    paper="Zhao et al., Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning, 2023, arXiv:2312.11420",
    application="jobs.methods.ln_tuning:apply",
    adapter="jobs.methods.ln_tuning:plan",
    learning_rate=1e-3,
    settings=(base_bits(16, 8, 4),),
    capabilities=Capabilities(bases=(16, 8, 4)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The weights of the norms, with their biases where they have some. Raises `UserError("method_cannot")` where there is no norm."""
    del settings
    if not frame.norms:
        raise UserError(
            "method_cannot", method=LN_TUNING.name, reason="it has no normalisation layer with a weight",
            instead="Choose another method.", where={"field": "method.id"},
        )  # fmt: skip
    weights = {f"{norm.name}.{kind}": (norm.numbers,) for norm in frame.norms for kind in ("weight", *["bias"] * norm.biased)}
    return Adapter(weights, keeps=Keeps())


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model whose norms are trained, as copies beside the base's own, in float32. Raises `UserError("method_cannot")`."""
    from peft import LNTuningConfig

    from jobs.methods.tuning import adapted

    frame = frame_of(model)
    plan(settings, frame)
    return adapted(model, LNTuningConfig(target_modules=sorted(norm.name for norm in frame.norms)), setup, method="ln_tuning")
