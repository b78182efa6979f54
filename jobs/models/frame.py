"""What an adapter finds in a base model: its linear layers, norms and head by name, with their sizes. Free of torch.

`read_frame` knows it from the config and the headers of the files, before anything is loaded; `jobs.methods.targets.frame_of` takes it from
a loaded model. Where a method puts its weights is decided upon a frame, by one function for both, so that what is told before a launch is
what trains.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.models.architectures import is_encoder
from jobs.models.head_shapes import TRAINED_WITH_ANY_ADAPTER, Shape, head_shapes
from jobs.models.inspect import inspect_tensors
from jobs.spec import Task

# Modules whose weight is a table and no layer.
_TABLE = re.compile(r"(^|_)(embed_tokens(_per_layer)?|embed_positions|embed_in|embeddings?|wte|wpe|shared|relative_attention_bias)$")
_NORM = re.compile(r"norm|^ln(_|$)", re.IGNORECASE)
# What transformers calls a module whose class is an attention.
_ATTENTION = re.compile(r"^(self_attn|self_attention|attention|attn|self|SelfAttention|EncDecAttention|cross_attn|encoder_attn)$")
# Experts of a mixture and their routers: plain parameters to transformers.
_EXPERT = re.compile(r"\.experts\.|\.(gate|router)\.weight$")
_OUTPUT = re.compile(r"^(lm_head|embed_out|output_layer)\.")
# Heads of the pretraining of encoders, and of other tasks than the one at hand.
_OTHER_HEAD = re.compile(
    r"^(cls|predictions|generator_predictions|generator_lm_head|discriminator_predictions|vocab_\w+|lm_predictions|mask_predictions"
    r"|sop_classifier|lm_head|decoder|classifier|score|qa_outputs|pre_classifier|sequence_summary)\.|(^|\.)pooler\."
)
# Masks and rotary tables that old files hold among the weights; a loader leaves them out.
NO_PARAMETER = re.compile(r"(rotary_emb\.inv_freq|\.masked_bias|\.attn\.bias|\.attention\.bias|position_ids|token_type_ids)$")
# Their layers are transformers' Conv1D: weights stored as [in, out].
TRANSPOSED = ("gpt2", "openai-gpt")
# What a task puts upon a base model: never adapted.
_HEADS = ("lm_head", "score", "classifier", "qa_outputs", "classification_head")


def in_head(name: str, trained_whole: Iterable[str] = ()) -> bool:
    """Whether a module of that name belongs to what a task puts upon the base model, or to one of those that are `trained_whole`."""
    return any(part in _HEADS for part in name.split(".")) or any(f"{name}.".startswith(f"{module}.") for module in trained_whole)


@dataclass(frozen=True)
class Layer:
    """A linear layer. `attention`: it lies directly in an attention module; `within` is the outermost attention module above it, or empty.
    `biased`: what it gives is a sum with its bias.
    """

    name: str
    inputs: int
    outputs: int
    biased: bool
    attention: bool
    within: str

    @property
    def numbers(self) -> int:
        """Numbers of its weight, bias left out."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Norm:
    """A normalisation layer: a weight of `numbers`, and as many biases where it is `biased`."""

    name: str
    numbers: int
    biased: bool


@dataclass(frozen=True)
class Frame:
    """A base model as methods see it. `layers` and `norms` in the model's order, those of heads and the output layer left out.

    `kind` is the config's `model_type`. `tensors` are all parameters of the model that a run trains on, by name, a tied one counted once;
    `head` the modules that are trained whole beside any adapter, with their numbers. `width` is that of the residual stream, `depth` the
    number of decoder (or encoder) layers, `cached` the numbers of a layer's keys for one token.
    """

    kind: str
    layers: tuple[Layer, ...]
    norms: tuple[Norm, ...]
    tensors: Mapping[str, Shape]
    head: Mapping[str, int]
    width: int
    depth: int
    cached: int

    @property
    def parameters(self) -> int:
        """Numbers of all parameters."""
        return sum(math.prod(shape) for shape in self.tensors.values())


def read_frame(folder: Path, task: Task = "causal_lm", labels: int = 2) -> Frame:
    """The frame of the model in `folder` with what `task` puts upon it, for `labels` labels where it classifies.

    Raises `UserError`: `model_missing`, `model_unusable`.
    """
    config, tensors = inspect_tensors(folder)
    return frame_of_files(config, {tensor.name: tensor.shape for tensor in tensors}, task, labels)


def frame_of_files(config: Mapping[str, Any], stored: Mapping[str, Shape], task: Task, labels: int) -> Frame:
    """The same of a config and the shapes of the stored tensors by name."""
    nested = config.get("text_config")
    text: Mapping[str, Any] = nested if isinstance(nested, dict) else config
    width = number(text, "hidden_size", "n_embd", "d_model", "dim") or 1
    heads = number(text, "num_attention_heads", "n_head", "num_heads", "n_heads") or 1
    head_width = number(text, "head_dim", "d_kv") or width // heads
    body = _parameters(config, text, stored, task)
    head = head_shapes(config["architectures"][0], task, width, labels)
    modules, whole = {**body, **head}, _trained_head(head, stored, task)
    return Frame(
        kind=str(config.get("model_type", "")),
        layers=tuple(layer for layer in _layers(modules, config.get("model_type") in TRANSPOSED) if not in_head(layer.name, whole)),
        norms=tuple(norm for norm in _norms(modules) if not in_head(norm.name, whole)),
        tensors=modules,
        head=whole,
        width=width,
        depth=number(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers") or 1,
        cached=(number(text, "num_key_value_heads") or heads) * head_width,
    )


def number(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first of these numbers that a config has."""
    return next((config[key] for key in keys if isinstance(config.get(key), int)), None)


def is_tied(config: Mapping[str, Any], text: Mapping[str, Any], stored: Iterable[str]) -> bool:
    """Whether the output layer is the table of the embeddings."""
    untied = any(_OUTPUT.match(name) for name in stored)
    return not untied or bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings")))


def _parameters(config: Mapping[str, Any], text: Mapping[str, Any], stored: Mapping[str, Shape], task: Task) -> dict[str, Shape]:
    """What a loader takes of the files for a task, a head of the task itself left out."""
    found = {_today(name): shape for name, shape in stored.items() if not NO_PARAMETER.search(name)}
    if "shared.weight" in found:  # an encoder-decoder's one table, which old files hold thrice
        found = {name: shape for name, shape in found.items() if not name.endswith("embed_tokens.weight")}
    if is_encoder(config["architectures"][0]):
        return {name: shape for name, shape in found.items() if not _OTHER_HEAD.search(name)}
    writes = task in ("causal_lm", "seq2seq_lm")
    if not writes or is_tied(config, text, found):
        found = {name: shape for name, shape in found.items() if not _OUTPUT.match(name)}
    return {name: shape for name, shape in found.items() if not name.startswith("score.")}


def _today(name: str) -> str:
    """A name as transformers has it now; old files call a norm's weight and bias gamma and beta."""
    return name.removesuffix("gamma") + "weight" if name.endswith(".gamma") else re.sub(r"\.beta$", ".bias", name)


def _is_stored(name: str, stored: Mapping[str, Shape]) -> bool:
    """Whether the files hold a head's weight, with the base's prefix or without."""
    return name in stored or name.partition(".")[2] in stored or any(other.endswith(f".{name}") for other in stored)


def _trained_head(head: Mapping[str, Shape], stored: Mapping[str, Shape], task: Task) -> dict[str, int]:
    """The modules trained whole: those that the files do not have, and what PEFT trains for a task by its name."""
    found: dict[str, int] = {}
    for name, shape in head.items():
        module = name.rpartition(".")[0]
        by_name = task in ("sequence_classification", "regression") and module.split(".")[0] in TRAINED_WITH_ANY_ADAPTER
        if by_name or not _is_stored(name, stored):
            found[module] = found.get(module, 0) + math.prod(shape)
    return found


def _layers(tensors: Mapping[str, Shape], transposed: bool) -> Iterable[Layer]:
    for name, shape in tensors.items():
        module, _, kind = name.rpartition(".")
        leaf = module.rpartition(".")[2]
        if kind != "weight" or len(shape) != 2 or _TABLE.search(leaf) or _EXPERT.search(name) or _OUTPUT.match(name):
            continue
        outputs, inputs = reversed(shape) if transposed else shape
        parents = module.split(".")[:-1]
        above = [place for place, part in enumerate(parents) if _ATTENTION.match(part)]
        within = ".".join(parents[: above[0] + 1]) if above else ""
        yield Layer(module, inputs, outputs, f"{module}.bias" in tensors, bool(above) and above[-1] == len(parents) - 1, within)


def _norms(tensors: Mapping[str, Shape]) -> Iterable[Norm]:
    for name, shape in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and len(shape) == 1 and _NORM.search(module.rpartition(".")[2]):
            yield Norm(module, shape[0], f"{module}.bias" in tensors)
