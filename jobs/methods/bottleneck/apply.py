"""Blocks behind the modules of each layer: bottleneck adapters, parallel ones, Compacter."""

from __future__ import annotations

from math import ceil
from typing import Any

from jobs.methods.bottleneck.entry import BOTTLENECK_ADAPTER, COMPACTER, PARALLEL_ADAPTER
from jobs.methods.entry import Method
from jobs.methods.places import find_places
from jobs.methods.setup import Setup
from jobs.methods.targets import setting_unfit
from jobs.methods.tuning import adapted


def apply_bottleneck(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a block behind each attention and each feed-forward module (`placement` houlsby) or the latter alone (pfeiffer).

    The layer norms are left as they are (Houlsby et al. train them too). `settings`: `placement size reduction non_linearity`, resolved by
    the catalogue. Step 0 is the base itself. Raises `UserError`.
    """
    return _with_blocks(model, BOTTLENECK_ADAPTER, settings, setup, size=_size(model, settings))


def apply_parallel(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a block beside each feed-forward module, which reads what the module reads.

    `settings`: `size reduction non_linearity scaling`. Step 0 is the base itself. Raises `UserError`.
    """
    return _with_blocks(model, PARALLEL_ADAPTER, settings, setup, size=_size(model, settings), scaling=settings["scaling"], parallel=True)


def apply_compacter(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with blocks of Kronecker sums. Their size by the reduction factor is rounded up to a multiple of n.

    `settings`: `placement size reduction non_linearity kronecker rank`. Step 0 is the base itself. Raises `UserError`.
    """
    n, width = settings["kronecker"], model.config.hidden_size
    if width % n:
        raise setting_unfit(COMPACTER.id, "kronecker", f"is {n}, which does not divide this model's width {width}")
    if settings["size"] % n:
        raise setting_unfit(COMPACTER.id, "size", f"is {settings['size']}, no multiple of the {n} Kronecker products")
    size = ceil(_size(model, settings) / n) * n
    return _with_blocks(model, COMPACTER, settings, setup, size=size, kronecker=n, rank=settings["rank"])


def _size(model: Any, settings: dict[str, Any]) -> int:
    return int(settings["size"]) or max(1, round(model.config.hidden_size / settings["reduction"]))


def _with_blocks(model: Any, method: Method, settings: dict[str, Any], setup: Setup, **form: Any) -> Any:
    from jobs.methods.bottleneck.tuner import BottleneckConfig

    places = find_places(model, method=method.name)
    behind_attention = places.attention if settings.get("placement") == "houlsby" else ()
    config = BottleneckConfig(
        form={"non_linearity": settings["non_linearity"], **form},
        inputs=places.inputs if form.get("parallel") else {},
        target_modules=[*behind_attention, *places.feed_forward],
    )
    return adapted(model, config, setup, method=method.id)
