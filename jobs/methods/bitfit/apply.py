"""BitFit upon a model: which of its layers have a bias, and a change for each."""

from __future__ import annotations

from typing import Any

from jobs.errors import UserError
from jobs.methods.bitfit.entry import BITFIT
from jobs.methods.bitfit.tuner import BitFitConfig, has_bias
from jobs.methods.setup import Setup
from jobs.methods.targets import in_head
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model whose biases are trained, as changes that start at zero, so that step 0 is the base itself.

    The output layer's bias is left as it is (a task's head is trained whole). Raises `UserError("method_cannot")` where there are none.
    """
    del settings
    names = bias_layers(model)
    if not names:
        raise UserError(
            "method_cannot", method=BITFIT.name, reason=f"its architecture ({model.config.model_type}) has no biases",
            instead="Choose layer norm tuning or (IA)³, which are as small, or LoRA.", where={"field": "method.id"},
        )  # fmt: skip
    return adapted(model, BitFitConfig(target_modules=names), setup, method="bitfit")


def bias_layers(model: Any) -> list[str]:
    """The names of the layers that have a bias, sorted; output layer and heads left out."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return sorted(name for name, module in model.named_modules() if has_bias(module) and module is not output and not in_head(name))
