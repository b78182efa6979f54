"""LoRA (Hu et al. 2021, arXiv:2106.09685) on linear layers and embeddings, and DoRA (Liu et al. 2024, arXiv:2402.09353) on linear ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.export.adapter_file import AdapterFile
from jobs.export.floats import Float32
from jobs.export.shards import StoredTensor
from jobs.export.updates.change import Apply, CannotStreamError, Change, Kind, check_shape, split
from jobs.export.updates.product import product

# Initialisations that leave the base as it is; all others move a part of it into the adapter.
PLAIN_INITIALISATIONS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")


def find(adapter: AdapterFile, tensor: StoredTensor) -> Change | None:
    """The change of a linear layer's weight or bias, or of an embedding."""
    module, leaf = split(tensor.name)
    if leaf == "bias":
        return _bias(adapter, tensor, module)
    if leaf != "weight":
        return None
    if tables := adapter.take_all(module, "lora_embedding_A", "lora_embedding_B"):
        down, up = tables
        return _low_rank(_Update(tensor, down, up, scale(adapter, module, down), transposed=True))
    if halves := adapter.take_all(module, "lora_A.weight", "lora_B.weight"):
        down, up = halves
        update = _Update(tensor, down, up, scale(adapter, module, down), transposed=bool(adapter.config.get("fan_in_fan_out")))
        magnitude = adapter.take_all(module, "lora_magnitude_vector")
        return _decomposed(update, *magnitude) if magnitude else _low_rank(update)
    return None


def check(config: Mapping[str, Any]) -> None:
    """Refuses the initialisations that changed the base."""
    if config.get("init_lora_weights", True) not in PLAIN_INITIALISATIONS:
        raise CannotStreamError(f"the initialisation {config['init_lora_weights']} changed the base")


@dataclass(frozen=True)
class _Update:
    """scale * B @ A for the weight `tensor`: `down` is A [rank, inputs], `up` is B [outputs, rank]; `transposed`: so is the weight."""

    tensor: StoredTensor
    down: StoredTensor
    up: StoredTensor
    scale: float
    transposed: bool

    def __post_init__(self) -> None:
        shape = (self.up.shape[0], self.down.shape[1])
        check_shape(self.tensor, shape[::-1] if self.transposed else shape)

    def load(self) -> Callable[[int, int], Float32]:
        """Gives `rows(first, count)`: rows of the update of the weight as it is stored; peft's operations in peft's order."""
        down, up = self.down.floats(), self.up.floats()

        def rows(first: int, count: int) -> Float32:
            part = slice(first, first + count)
            made = product(up, np.ascontiguousarray(down[:, part])).T if self.transposed else product(up[part], down)
            made *= self.scale
            return made

        return rows


def scale(adapter: AdapterFile, module: str, down: StoredTensor) -> float:
    """What B @ A is multiplied by; `down` is A [rank, inputs]."""
    alpha, rank = adapter.setting("lora_alpha", module, "alpha_pattern"), down.shape[0]
    return alpha / (math.sqrt(rank) if adapter.config.get("use_rslora") else rank)


def _low_rank(update: _Update) -> Change:
    """W + scale * B @ A."""

    def load() -> Apply:
        made = update.load()

        def apply(rows: Float32, first: int) -> None:
            rows += made(first, len(rows))

        return apply

    return Change(load)


def _decomposed(update: _Update, magnitude: StoredTensor) -> Change:
    """DoRA: W + scale * B @ A, with the norm of each output's weights set to its magnitude."""

    def load() -> Apply:
        made, lengths = update.load(), magnitude.floats()

        def by_rows(rows: Float32, first: int) -> None:
            rows += made(first, len(rows))
            rows *= (lengths[first : first + len(rows)] / np.sqrt(np.einsum("oi,oi->o", rows, rows)))[:, None]

        def by_columns(rows: Float32, first: int) -> None:
            rows += made(first, len(rows))
            rows *= lengths / np.sqrt(np.einsum("io,io->o", rows, rows))

        return by_columns if update.transposed else by_rows

    return Change(load, whole=update.transposed)


def _bias(adapter: AdapterFile, tensor: StoredTensor, module: str) -> Change | None:
    """The bias of B (`lora_bias`), scaled as the product is."""
    learnt = adapter.take_all(module, "lora_B.bias")
    if not learnt:
        return None
    check_shape(tensor, learnt[0].shape)
    halves = adapter.take_all(module, "lora_A.weight")
    if not halves:
        raise CannotStreamError(f"{module} has the bias of an update and no update")
    factor = scale(adapter, module, halves[0])

    def load() -> Apply:
        values = learnt[0].floats() * np.float32(factor)

        def apply(rows: Float32, first: int) -> None:
            rows += values[first : first + len(rows), None]

        return apply

    return Change(load)


LORA = Kind(
    find,
    frozenset({
        "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "fan_in_fan_out",
        "bias", "init_lora_weights", "eva_config", "trainable_token_indices", "ensure_weight_tying", "megatron_core", "qalora_group_size",
        "loftq_config", "runtime_config",
    }),
    check,
)  # fmt: skip
