"""C3A: the update consists of circulant blocks, applied by the fast Fourier transform, by PEFT."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.selection import divisor, targeted
from jobs.methods.settings import TARGETS, base_bits
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

# Of the automatic choice: the paper's for RoBERTa-base.
LARGEST_BLOCK = 128

C3A = Method(
    id="c3a",
    name="C3A",
    family="reparametrisation",
    summary=(
        "The update consists of circulant blocks, each given by its first row: high rank from few trained numbers, and the product is a "
        "Fourier transform. Take it where the adapter must be small but not of low rank; it wants a very high learning rate."
    ),
    paper="Chen et al., Parameter-Efficient Fine-Tuning via Circular Convolution, 2024, arXiv:2407.19342",
    application="jobs.methods.c3a:apply",
    adapter="jobs.methods.c3a:plan",
    learning_rate=1e-1,
    settings=(
        Setting(
            "block_size",
            "Block size",
            "int",
            0,
            "Side of a circulant block; it must divide inputs and outputs of every layer. Smaller blocks train more numbers. 0 chooses the "
            f"largest up to {LARGEST_BLOCK} that fits.",
            0,
            8192,
        ),
        TARGETS,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4), needs=("linear",)),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The first rows of the circulant blocks of each layer."""
    size = _block_size(settings, targeted(frame, settings["targets"], method="c3a"))

    def shapes(layer: Layer) -> dict[str, Shape]:
        return {"kernel": (layer.outputs // size, layer.inputs // size, size)}

    # the inputs are transformed in float32
    return beside(frame, settings, "c3a", shapes, lambda layer: Keeps(token_wide=layer.inputs))


def _block_size(settings: Mapping[str, Any], layers: Iterable[Layer]) -> int:
    both = [size for layer in layers for size in (layer.inputs, layer.outputs)]
    return divisor(both, settings["block_size"], at_most=LARGEST_BLOCK, method="c3a", setting="block_size")


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a C3A adapter: in * out / block size trained numbers a layer, all zero, so that step 0 is the base itself.

    Raises `UserError`.
    """
    from peft import C3AConfig

    from jobs.methods.tuning import adapted

    layers = targeted(frame_of(model), settings["targets"], method="c3a")
    config = C3AConfig(block_size=_block_size(settings, layers), init_weights=True, target_modules=[layer.name for layer in layers])
    found = adapted(model, config, setup, method="c3a")
    _copy_outputs_of_quantised_layers(found)
    return found


def _copy_outputs_of_quantised_layers(model: Any) -> None:
    """PEFT's layer adds to its base's output in place, which autograd forbids for what bitsandbytes gives where a layer has a bias."""
    from jobs.models.quantisation import is_quantised

    for module in model.modules():
        base = getattr(module, "base_layer", None)
        if base is not None and hasattr(module, "c3a_kernel") and is_quantised(base):
            base.register_forward_hook(lambda _layer, _inputs, output: output.clone())
