"""C3A: the update consists of circulant blocks, applied by the fast Fourier transform, by PEFT."""

from __future__ import annotations

from typing import Any

from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import TARGETS, base_bits
from jobs.methods.setup import Setup

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


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a C3A adapter: in * out / block size trained numbers a layer, all zero, so that step 0 is the base itself.

    Raises `UserError`.
    """
    from peft import C3AConfig

    from jobs.methods.targets import divisor, sizes, target_names
    from jobs.methods.tuning import adapted

    names = target_names(model, settings["targets"], method="c3a")
    both = [size for name in names for size in sizes(model.get_submodule(name))]
    config = C3AConfig(
        block_size=divisor(both, settings["block_size"], at_most=LARGEST_BLOCK, method="c3a", setting="block_size"),
        init_weights=True,
        target_modules=names,
    )
    found = adapted(model, config, setup, method="c3a")
    _copy_outputs_of_quantised_layers(found)
    return found


def _copy_outputs_of_quantised_layers(model: Any) -> None:
    """PEFT's layer adds to its base's output in place, which autograd forbids for what bitsandbytes gives where a layer has a bias."""
    for module in model.modules():
        base = getattr(module, "base_layer", None)
        if base is not None and hasattr(module, "c3a_kernel") and type(base).__module__.startswith("bitsandbytes"):
            base.register_forward_hook(lambda _layer, _inputs, output: output.clone())
