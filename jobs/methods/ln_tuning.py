"""Layer norm tuning: the norms' own weights are trained, by PEFT."""

from __future__ import annotations

from typing import Any

from jobs.methods.entry import Capabilities, Method
from jobs.methods.settings import base_bits
from jobs.methods.setup import Setup

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
    learning_rate=1e-3,
    settings=(base_bits(16, 8, 4),),
    capabilities=Capabilities(bases=(16, 8, 4)),
)


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model whose norms are trained, as copies beside the base's own, in float32. Raises `UserError("method_cannot")`."""
    del settings
    from peft import LNTuningConfig

    from jobs.errors import UserError
    from jobs.methods.tuning import adapted

    names = norm_layers(model)
    if not names:
        raise UserError(
            "method_cannot", method=LN_TUNING.name, reason="it has no normalisation layer with a weight",
            instead="Choose another method.", where={"field": "method.id"},
        )  # fmt: skip
    return adapted(model, LNTuningConfig(target_modules=names), setup, method="ln_tuning")


def norm_layers(model: Any) -> list[str]:
    """The names of the normalisation layers, sorted: modules without children whose class is called so (LayerNorm, LlamaRMSNorm,
    T5LayerNorm) and that have a weight; those of a task's head left out.
    """
    from jobs.methods.targets import in_head

    return sorted(
        name
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        and getattr(module, "weight", None) is not None
        and not list(module.children())
        and not in_head(name)
    )
