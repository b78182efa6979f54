"""Blocks behind the modules of each layer: bottleneck adapters, parallel ones, Compacter."""

from __future__ import annotations

from typing import Any

from jobs.methods.bottleneck.entry import BOTTLENECK_ADAPTER, COMPACTER, PARALLEL_ADAPTER, block_size, kronecker_size, places_of
from jobs.methods.entry import Method
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.methods.tuning import adapted


def apply_bottleneck(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a block behind each attention and each feed-forward module (`placement` houlsby) or the latter alone (pfeiffer).

    The layer norms are left as they are (Houlsby et al. train them too). `settings`: `placement size reduction non_linearity`, resolved by
    the catalogue. Step 0 is the base itself. Raises `UserError`.
    """
    return _with_blocks(model, BOTTLENECK_ADAPTER, settings, setup, size=block_size(settings, frame_of(model)))


def apply_parallel(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a block beside each feed-forward module, which reads what the module reads.

    `settings`: `size reduction non_linearity scaling`. Step 0 is the base itself. Raises `UserError`.
    """
    size = block_size(settings, frame_of(model))
    return _with_blocks(model, PARALLEL_ADAPTER, settings, setup, size=size, scaling=settings["scaling"], parallel=True)


def apply_compacter(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with blocks of Kronecker sums. Their size by the reduction factor is rounded up to a multiple of n.

    `settings`: `placement size reduction non_linearity kronecker rank`. Step 0 is the base itself. Raises `UserError`.
    """
    size = kronecker_size(settings, frame_of(model))
    return _with_blocks(model, COMPACTER, settings, setup, size=size, kronecker=settings["kronecker"], rank=settings["rank"])


def _with_blocks(model: Any, method: Method, settings: dict[str, Any], setup: Setup, **form: Any) -> Any:
    from jobs.methods.bottleneck.tuner import BottleneckConfig

    places, ends = places_of(settings, frame_of(model), method.name)
    config = BottleneckConfig(
        form={"non_linearity": settings["non_linearity"], **form},
        inputs=places.inputs if form.get("parallel") else {},
        target_modules=ends,
    )
    return adapted(model, config, setup, method=method.id)
