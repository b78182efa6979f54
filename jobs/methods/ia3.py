"""(IA)^3: keys, values and the inner activations of the feed-forward layers are rescaled, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.errors import UserError
from jobs.methods.adapter import Adapter, Keeps, upon
from jobs.methods.entry import Capabilities, Method
from jobs.methods.settings import base_bits
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.models.frame import Frame, Layer

IA3 = Method(
    id="ia3",
    name="(IA)³",
    family="selective",
    summary=(
        "Learns one factor for each key, each value and each inner activation of the feed-forward layers, nothing else: the smallest of "
        "the usual adapters, and no slower once merged. Take it for few rows or very many adapters; it cannot learn much that is new."
    ),
    paper=("Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning, 2022, arXiv:2205.05638"),
    application="jobs.methods.ia3:apply",
    adapter="jobs.methods.ia3:plan",
    learning_rate=1e-2,
    settings=(base_bits(16, 8, 4),),
    capabilities=Capabilities(bases=(16, 8, 4)),
)

# How key and value projections are called, up to the first underscore: k_proj, key, v_lin, kv_b_proj.
_KEYS_AND_VALUES = frozenset({"k", "key", "keys", "v", "value", "values", "kv"})


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """A factor for each output of keys and values, and one for each input of the ways down. Raises `UserError("method_cannot")`."""
    del settings
    keys, down = key_value_layers(frame), down_layers(frame)
    if not keys + down:
        raise UserError(
            "method_cannot", method=IA3.name, reason="it has neither attention nor feed-forward layers that are linear",
            instead="Choose another method.", where={"field": "method.id"},
        )  # fmt: skip
    inner = {layer.name for layer in down}

    def keeps(layer: Layer) -> Keeps:
        """What is scaled: of the ways down in float32."""
        return Keeps(token_wide=layer.inputs) if layer.name in inner else Keeps(token=layer.outputs)

    return upon([*keys, *down], lambda layer: {"l": (layer.inputs if layer.name in inner else layer.outputs,)}, keeps)


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with an (IA)^3 adapter; all factors are one, so that step 0 is the base itself. Raises `UserError`."""
    from peft import IA3Config

    from jobs.methods.tuning import adapted

    frame = frame_of(model)
    names = [layer.name for layer in plan(settings, frame).layers]
    config = IA3Config(target_modules=names, feedforward_modules=[layer.name for layer in down_layers(frame)])
    return adapted(model, config, setup, method="ia3")


def key_value_layers(frame: Frame) -> list[Layer]:
    """The layers that make keys and values, by name.

    Those in an attention module that are called so; where none is, the one with the most outputs, which makes query, key and value in one
    (GPT-2's c_attn, GPT-NeoX's query_key_value): the query is then rescaled too, as in PEFT's own choice for such models.
    """
    modules: dict[str, list[Layer]] = {}
    for layer in frame.layers:
        if layer.attention:
            modules.setdefault(layer.name.rpartition(".")[0], []).append(layer)
    found: list[Layer] = []
    for layers in modules.values():
        named = [layer for layer in layers if layer.name.rpartition(".")[2].split("_")[0] in _KEYS_AND_VALUES]
        found += named or [max(layers, key=lambda layer: layer.outputs)]
    return sorted(found, key=lambda layer: layer.name)


def down_layers(frame: Frame) -> list[Layer]:
    """The layers that lead from the inner width of a feed-forward module back to the model's own, by name.

    Known by their shape, whatever they are called: within a numbered layer, outside attention, as many outputs as the model is wide and
    another number of inputs. In a mixture of experts each expert has one, where experts are modules of their own.
    """

    def is_down(layer: Layer) -> bool:
        numbered = any(part.isdigit() for part in layer.name.split("."))
        return layer.outputs == frame.width != layer.inputs and not layer.within and numbered

    return sorted(filter(is_down, frame.layers), key=lambda layer: layer.name)
