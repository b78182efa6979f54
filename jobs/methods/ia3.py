"""(IA)^3: keys, values and the inner activations of the feed-forward layers are rescaled, by PEFT."""

from __future__ import annotations

from typing import Any

from jobs.methods.entry import Capabilities, Method
from jobs.methods.settings import base_bits
from jobs.methods.setup import Setup

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
    learning_rate=3e-3,
    settings=(base_bits(16, 8, 4),),
    capabilities=Capabilities(bases=(16, 8, 4)),
)

# How key and value projections are called, up to the first underscore: k_proj, key, v_lin, kv_b_proj.
_KEYS_AND_VALUES = frozenset({"k", "key", "keys", "v", "value", "values", "kv"})


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with an (IA)^3 adapter; all factors are one, so that step 0 is the base itself. Raises `UserError`."""
    del settings
    from peft import IA3Config

    from jobs.errors import UserError
    from jobs.methods.tuning import adapted

    attention, down = key_value_layers(model), down_layers(model)
    if not attention + down:
        raise UserError(
            "method_cannot", method=IA3.name, reason="it has neither attention nor feed-forward layers that are linear",
            instead="Choose another method.", where={"field": "method.id"},
        )  # fmt: skip
    config = IA3Config(target_modules=attention + down, feedforward_modules=down)
    return adapted(model, config, setup, method="ia3")


def key_value_layers(model: Any) -> list[str]:
    """The names of the layers that make keys and values, sorted.

    Those in an attention module that are called so; where none is, the one with the most outputs, which makes query, key and value in one
    (GPT-2's c_attn, GPT-NeoX's query_key_value): the query is then rescaled too, as in PEFT's own choice for such models.
    """
    from jobs.methods.targets import linear_layers, sizes

    modules: dict[str, dict[str, Any]] = {}
    for name, layer in linear_layers(model, attention_only=True):
        parent, _, leaf = name.rpartition(".")
        modules.setdefault(parent, {})[leaf] = layer
    found = []
    for parent, layers in modules.items():
        named = [leaf for leaf in layers if leaf.split("_")[0] in _KEYS_AND_VALUES]
        outputs = {leaf: sizes(layer)[1] for leaf, layer in layers.items()}
        found += [f"{parent}.{leaf}" for leaf in named or [max(outputs, key=outputs.__getitem__)]]
    return sorted(found)


def down_layers(model: Any) -> list[str]:
    """The names of the layers that lead from the inner width of a feed-forward module back to the model's own, sorted.

    Known by their shape, whatever they are called: within a numbered layer, outside attention, as many outputs as the model is wide and
    another number of inputs. In a mixture of experts each expert has one, where experts are modules of their own.
    """
    from jobs.methods.targets import linear_layers, sizes

    width = int(model.config.hidden_size)
    attention = {name for name, module in model.named_modules() if "attention" in type(module).__name__.lower()}

    def is_down(name: str, layer: Any) -> bool:
        parts = name.split(".")
        parents = {".".join(parts[:depth]) for depth in range(1, len(parts))}
        inputs, outputs = sizes(layer)
        return outputs == width != inputs and not parents & attention and any(part.isdigit() for part in parts)

    return sorted(name for name, layer in linear_layers(model) if is_down(name, layer))
