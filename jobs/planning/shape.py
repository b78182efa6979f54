"""What a model is made of, from its config and the headers of its safetensors files. Free of torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jobs.models.frame import NO_PARAMETER, TRANSPOSED, Frame, frame_of_files, is_tied, number
from jobs.models.inspect import DTYPE_NAMES, TensorFacts, inspect_tensors
from jobs.spec import Task

Part = Literal["embeddings", "attention", "mlp", "norms", "head", "other"]
PARTS: tuple[Part, ...] = ("embeddings", "attention", "mlp", "norms", "head", "other")

_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|embed_positions|embed_in|word_embeddings|wte|wpe)\.weight$")
_HEAD = re.compile(r"^(lm_head|embed_out|output_layer)\.(weight|bias)$")
_NORM = re.compile(r"(norm|(^|\.)ln_)[^.]*\.(weight|bias)$", re.IGNORECASE)
_ATTENTION = re.compile(r"\.(self_attn|self_attention|attention|attn)\.")
_MLP = re.compile(r"\.(mlp|feed_forward|ffn|block_sparse_moe|fc1|fc2)\.")
_EXPERT = re.compile(r"\.experts\.")
_ROUTER = re.compile(r"\.(gate|router)\.weight$")
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
# The layer that leads out of an attention or an MLP; all others read what leads in.
_EXIT = re.compile(r"\.(o_proj|out_proj|dense|c_proj|down_proj|dense_4h_to_h|fc2|fc_out)$")


@dataclass(frozen=True)
class Linear:
    """A linear layer of a decoder layer: `inputs` and `outputs` are widths in numbers per token; `layer` counts from 0."""

    name: str
    layer: int
    part: Part
    inputs: int
    outputs: int

    @property
    def numbers(self) -> int:
        """Numbers of its weight, bias left out."""
        return self.inputs * self.outputs

    @property
    def leads_out(self) -> bool:
        """Whether it is the last layer of an attention or an MLP; the others of that part read one and the same input."""
        return _EXIT.search(self.name) is not None


@dataclass(frozen=True)
class ModelShape:
    """A language model's sizes. `tensors` are the shapes of its parameters by name, a tied head counted once (as the embeddings);
    `linears` the layers that an adapter on all linear layers would sit on. Widths are in numbers per token. `config` and `stored`, the
    shapes of all tensors of the files, are what it was read from.
    """

    architecture: str
    dtype: str
    tensors: Mapping[str, tuple[int, ...]]
    linears: tuple[Linear, ...]
    stored_bytes: int
    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_width: int
    intermediate: int
    vocabulary: int
    context: int | None
    tied: bool
    experts: int
    active_experts: int
    config: Mapping[str, Any]
    stored: Mapping[str, tuple[int, ...]]

    def frame(self, task: Task = "causal_lm", labels: int = 2) -> Frame:
        """What methods see of it, with what a task puts upon it, for so many labels where it classifies."""
        # An advice asks for it some fifty times, and each takes milliseconds.
        if (task, labels) not in self._frames:
            self._frames[task, labels] = frame_of_files(self.config, self.stored, task, labels)
        return self._frames[task, labels]

    @cached_property
    def _frames(self) -> dict[tuple[Task, int], Frame]:
        return {}

    @cached_property
    def parameters(self) -> dict[Part, int]:
        """Parameters by part."""
        counts: Counter[Part] = Counter()
        for name, shape in self.tensors.items():
            counts[part_of(name)] += math.prod(shape)
        return {part: counts[part] for part in PARTS}

    @property
    def total_parameters(self) -> int:
        """All of them."""
        return sum(self.parameters.values())

    @property
    def norms_per_layer(self) -> int:
        """Norms of the whole width in one decoder layer."""
        found = sum(
            part_of(name) == "norms" and name.endswith("weight") and shape == (self.hidden,) for name, shape in self.tensors.items()
        )
        return round(found / max(1, self.layers))

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two branches (SwiGLU and its like)."""
        return self.experts > 1 or self._into_mlp() >= 2 * self.intermediate

    def _into_mlp(self) -> int:
        return sum(linear.outputs for linear in self.linears if linear.layer == 0 and linear.part == "mlp" and linear.inputs == self.hidden)


def read_shape(folder: Path) -> ModelShape:
    """The shape of the model in `folder`. Raises `UserError`: `model_missing`, `model_unusable`."""
    return shape_of(*inspect_tensors(folder))


def shape_of(config: dict[str, Any], tensors: Sequence[TensorFacts]) -> ModelShape:
    """The same of what `inspect_tensors` found."""
    nested = config.get("text_config")
    text: dict[str, Any] = nested if isinstance(nested, dict) else config
    parameters = {tensor.name: tensor.shape for tensor in tensors if not NO_PARAMETER.search(tensor.name)}
    heads = [name for name in parameters if _HEAD.search(name)]
    tied = is_tied(config, text, parameters)
    if tied:
        parameters = {name: shape for name, shape in parameters.items() if name not in heads}
    hidden = number(text, "hidden_size", "n_embd", "d_model", "dim") or 1
    query_heads = number(text, "num_attention_heads", "n_head", "num_heads", "n_heads") or 1
    return ModelShape(
        architecture=config["architectures"][0],
        dtype=_main_dtype(tensors),
        tensors=parameters,
        linears=tuple(_linears(parameters, transposed=config.get("model_type") in TRANSPOSED)),
        stored_bytes=sum(tensor.size for tensor in tensors),
        layers=number(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers") or 1,
        hidden=hidden,
        heads=query_heads,
        key_heads=number(text, "num_key_value_heads") or query_heads,
        head_width=number(text, "head_dim", "d_kv") or hidden // query_heads,
        intermediate=number(text, "moe_intermediate_size", "intermediate_size", "n_inner", "d_ff", "hidden_dim") or 4 * hidden,
        vocabulary=number(text, "vocab_size") or 1,
        context=number(text, "max_position_embeddings", "n_positions"),
        tied=tied,
        experts=number(text, "num_local_experts", "num_experts", "n_routed_experts") or 1,
        active_experts=number(text, "num_experts_per_tok") or 1,
        config=config,
        stored={tensor.name: tensor.shape for tensor in tensors},
    )


def part_of(name: str) -> Part:
    """The part of a model that a tensor belongs to, by its name."""
    if _EMBEDDING.search(name):
        return "embeddings"
    if _HEAD.search(name):
        return "head"
    if _NORM.search(name):
        return "norms"
    if _ATTENTION.search(name):
        return "attention"
    return "mlp" if _MLP.search(name) else "other"


def _linears(parameters: Mapping[str, tuple[int, ...]], *, transposed: bool) -> Iterable[Linear]:
    """The linear layers within decoder layers. Experts and their routers are left out: transformers holds them as plain parameters."""
    for name, shape in parameters.items():
        place = _LAYER.search(name)
        if place is None or len(shape) != 2 or not name.endswith(".weight") or part_of(name) not in ("attention", "mlp", "other"):
            continue
        if _EXPERT.search(name) or _ROUTER.search(name):
            continue
        outputs, inputs = reversed(shape) if transposed else shape
        layer = name.removesuffix(".weight")
        yield Linear(layer, int(place[1]), part_of(name), inputs, outputs)


def _main_dtype(tensors: Iterable[TensorFacts]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.size
    return DTYPE_NAMES.get(sizes.most_common(1)[0][0], "float32")
