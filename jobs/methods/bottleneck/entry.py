"""Catalogue entries of the bottleneck adapters (torch-free)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, upon
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.places import Places, find_places
from jobs.methods.selection import setting_unfit
from jobs.methods.settings import base_bits
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

_PLACEMENT = Setting(
    "placement",
    "Placement",
    "choice",
    "houlsby",
    "Where adapters stand. houlsby: behind each attention and each feed-forward module. pfeiffer: behind the feed-forward modules alone, "
    "half as many and nearly as good.",
    choices=("houlsby", "pfeiffer"),
)
_SIZE = Setting(
    "size",
    "Bottleneck size",
    "int",
    0,
    "The numbers that an activation is narrowed to. 0: the model's width divided by the reduction factor. 16 to 256 is usual.",
    0,
    8192,
)


def _reduction(default: int, usual: str) -> Setting:
    return Setting(
        "reduction",
        "Reduction factor",
        "int",
        default,
        f"Where the bottleneck size is 0: how many times narrower than the model it is. Larger is smaller. {usual} is usual.",
        1,
        1024,
    )


def _non_linearity(default: str) -> Setting:
    return Setting(
        "non_linearity",
        "Non-linearity",
        "choice",
        default,
        "What bends the narrowed activation. They differ little; relu and gelu are usual.",
        choices=("relu", "gelu", "silu", "tanh"),
    )


BOTTLENECK_ADAPTER = Method(
    id="bottleneck_adapter",
    name="Bottleneck adapter",
    family="adapters",
    summary=(
        "Puts a small network behind the modules of each layer: it narrows what they give, bends it and widens it again. The first of the "
        "adapters, well tried on encoders. It computes what no change of weights can, so it cannot be merged and makes answers a little "
        "slower. Take it where several adapters are to be fused afterwards; else LoRA is as good and merges."
    ),
    paper=(
        "Houlsby et al., Parameter-Efficient Transfer Learning for NLP, 2019, arXiv:1902.00751; placement: Pfeiffer et al., "
        "AdapterFusion: Non-Destructive Task Composition for Transfer Learning, 2020, arXiv:2005.00247"
    ),
    application="jobs.methods.bottleneck.apply:apply_bottleneck",
    adapter="jobs.methods.bottleneck.entry:plan_bottleneck",
    tuner="jobs.methods.bottleneck.tuner",
    learning_rate=3e-3,
    settings=(_PLACEMENT, _SIZE, _reduction(16, "2 to 64"), _non_linearity("relu"), base_bits(16, 8, 4)),
    capabilities=Capabilities(bases=(16, 8, 4), merges=False),
)

PARALLEL_ADAPTER = Method(
    id="parallel_adapter",
    name="Parallel adapter",
    family="adapters",
    summary=(
        "A bottleneck adapter beside each feed-forward module in the place of one behind it: it reads what the module reads, and its "
        "result, scaled, is added. Better than one behind at the same size, in the comparison that introduced it, most of all for "
        "writing (summaries, translation). It cannot be merged."
    ),
    paper="He et al., Towards a Unified View of Parameter-Efficient Transfer Learning, 2021, arXiv:2110.04366",
    application="jobs.methods.bottleneck.apply:apply_parallel",
    adapter="jobs.methods.bottleneck.entry:plan_parallel",
    tuner="jobs.methods.bottleneck.tuner",
    learning_rate=5e-4,
    settings=(
        _SIZE,
        _reduction(4, "2 to 16"),
        _non_linearity("relu"),
        Setting(
            "scaling", "Scale", "float", 4.0, "What the adapter's result is multiplied by. 1 to 4 is usual; the paper has 4.", 0.01, 100
        ),
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4), merges=False),
)

COMPACTER = Method(
    id="compacter",
    name="Compacter",
    family="adapters",
    summary=(
        "Bottleneck adapters whose matrices are sums of Kronecker products, with one factor of each shared by the whole model: about "
        "13 times fewer numbers than plain ones at size 20, 40 times at size 64. Take it for many adapters, or few rows; it learns with a "
        "large learning rate. It cannot be merged."
    ),
    paper=(
        "Karimi Mahabadi, Henderson and Ruder, Compacter: Efficient Low-Rank Hypercomplex Adapter Layers, 2021, arXiv:2106.04647; with "
        "placement pfeiffer it is their Compacter++"
    ),
    application="jobs.methods.bottleneck.apply:apply_compacter",
    adapter="jobs.methods.bottleneck.entry:plan_compacter",
    tuner="jobs.methods.bottleneck.tuner",
    learning_rate=3e-3,
    settings=(
        _PLACEMENT,
        _SIZE,
        _reduction(32, "8 to 64"),
        _non_linearity("gelu"),
        Setting(
            "kronecker",
            "Kronecker products",
            "int",
            4,
            "How many products a matrix is the sum of (n). It must divide the model's width and the bottleneck size. The paper tries 4, 8 "
            "and 12; 4 is good.",
            2,
            64,
        ),
        Setting("rank", "Rank", "int", 1, "Rank of the second factor of each product. 1 is the paper's; more learns more.", 1, 64),
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4), merges=False),
)


def plan_bottleneck(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """A narrowing and a widening layer, with biases, at each place. Raises `UserError("method_cannot")` where a place is not found."""
    return _plan(settings, frame, BOTTLENECK_ADAPTER, *_plain(block_size(settings, frame)))


def plan_parallel(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The same beside each feed-forward module."""
    return _plan(settings, frame, PARALLEL_ADAPTER, *_plain(block_size(settings, frame)))


def plan_compacter(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The factors S and T of each matrix and its bias, and A once for the model."""
    n, rank = settings["kronecker"], settings["rank"]

    def matrix(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
        return {f"{name}.left": (n, outputs // n, rank), f"{name}.right": (n, rank, inputs // n), f"{name}.bias": (outputs,)}

    def keeps(layer: Layer) -> Keeps:
        """What the block reads, what goes into A and out of it in both matrices, and both sides of the non-linearity."""
        return Keeps(token=layer.outputs + 4 * n * n * rank + 2 * size)

    size = kronecker_size(settings, frame)
    found = _plan(settings, frame, COMPACTER, lambda width: matrix("down", width, size) | matrix("up", size, width), keeps)
    return replace(found, weights={**found.weights, "factors": (n, n, n)})


def places_of(settings: Mapping[str, Any], frame: Frame, method: str) -> tuple[Places, list[str]]:
    """Where modules end, and the layers that blocks stand behind. Raises `UserError("method_cannot")`."""
    places = find_places(frame, method=method)
    return places, [*(places.attention if settings.get("placement") == "houlsby" else ()), *places.feed_forward]


def block_size(settings: Mapping[str, Any], frame: Frame) -> int:
    """The numbers that an activation is narrowed to."""
    return int(settings["size"]) or max(1, round(frame.width / int(settings["reduction"])))


def kronecker_size(settings: Mapping[str, Any], frame: Frame) -> int:
    """The same as a multiple of the Kronecker products. Raises `UserError("method_setting")` where they do not fit the model."""
    n = int(settings["kronecker"])
    if frame.width % n:
        raise setting_unfit(COMPACTER.id, "kronecker", f"is {n}, which does not divide this model's width {frame.width}")
    if settings["size"] % n:
        raise setting_unfit(COMPACTER.id, "size", f"is {settings['size']}, no multiple of the {n} Kronecker products")
    return ceil(block_size(settings, frame) / n) * n


def _plain(size: int) -> tuple[Callable[[int], Mapping[str, Shape]], Callable[[Layer], Keeps]]:
    """The weights of a plain block, and what it keeps: what it reads, narrowed or not, and its two matrices."""

    def weights(width: int) -> dict[str, Shape]:
        return {"down.weight": (size, width), "down.bias": (size,), "up.weight": (width, size), "up.bias": (width,)}

    return weights, lambda layer: Keeps(token=layer.outputs + size, copied=2 * layer.outputs * size)


def _plan(
    settings: Mapping[str, Any],
    frame: Frame,
    method: Method,
    block: Callable[[int], Mapping[str, Shape]],
    keeps: Callable[[Layer], Keeps] | None = None,
) -> Adapter:
    """`block` gives the weights of one block of a model of some width."""
    _, ends = places_of(settings, frame, method.name)
    return upon([layer for layer in frame.layers if layer.name in set(ends)], lambda layer: block(layer.outputs), keeps)
