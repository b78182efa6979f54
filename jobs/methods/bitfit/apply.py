"""BitFit upon a model: a change of the bias of each of its layers."""

from __future__ import annotations

from typing import Any

from jobs.methods.bitfit.entry import plan
from jobs.methods.bitfit.tuner import BitFitConfig
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.methods.tuning import adapted


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model whose biases are trained, as changes that start at zero, so that step 0 is the base itself.

    The output layer's bias is left as it is (a task's head is trained whole). Raises `UserError("method_cannot")` where there are none.
    """
    names = sorted(name.removesuffix(".delta") for name in plan(settings, frame_of(model)).weights)
    return adapted(model, BitFitConfig(target_modules=names), setup, method="bitfit")
