"""A merge tensor by tensor, from the files of base and adapter into new files: memory holds blocks of rows, never the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.export.adapter_file import PREFIX, AdapterFile
from jobs.export.dequantised import Dequantised
from jobs.export.floats import ARRAYS, narrow
from jobs.export.shards import HeldTensor, NewTensor, Source, StoredTensor, read_checkpoint, rewrite, stored_dtype, unchanged
from jobs.export.updates import KINDS, CannotStreamError, Change, Kind
from jobs.export.updates.change import split
from jobs.export.updates.tokens import find as find_rows
from jobs.export.updates.tokens import same_rows

if TYPE_CHECKING:
    from jobs.spec import StoredDtype

# Settings of every peft config that say where an adapter sits or comes from, not what it does to a weight.
COMMON = frozenset({
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
})  # fmt: skip
# The module that reads the weight of an embedding where the checkpoint has none for it: the two are tied.
HEADS = {"embed_tokens": "lm_head", "wte": "lm_head", "word_embeddings": "lm_head", "embed_in": "embed_out"}


@dataclass(frozen=True)
class Plan:
    """What to write: every tensor, and what differs in the model's config."""

    tensors: Sequence[NewTensor]
    config: dict[str, Any]


@dataclass(frozen=True)
class _Merged:
    """A tensor of the base: where its numbers come from (itself, or a whole tensor of the adapter), and how they change."""

    base: StoredTensor
    source: StoredTensor
    change: Change | None

    @property
    def differs(self) -> bool:
        return self.change is not None or self.source is not self.base

    def new(self, dtype: StoredDtype, dequantised: Dequantised | None) -> NewTensor:
        """The tensor as it will stand in the result."""
        stored = stored_dtype(self.base, dtype)
        if dequantised is None and self.change is None:
            return unchanged(self.source, stored, self.base.name)

        def write(handle: int, offset: int) -> None:
            start = dequantised(self.base.name) if dequantised else None
            if start is None and self.change is None:
                unchanged(self.source, stored).write(handle, offset)
                return
            source: Source = self.source if start is None else _held(self.base.name, start, stored)
            apply, whole = (self.change.load(), self.change.whole) if self.change else (None, False)
            rewrite(source, stored, handle, offset, apply, whole=whole)

        return NewTensor(self.base.name, stored, self.base.shape, write)


def plan(base: Path, adapter: AdapterFile, *, dtype: StoredDtype, dequantised: Dequantised | None) -> Plan:
    """Plans the merge; nothing is written and no weight is read yet.

    Raises `CannotStreamError` where the adapter does more than is known here, or one of its tensors matches none of the base's.
    """
    kind = kind_of(adapter)
    tensors = read_checkpoint(base)
    head, embedding = _tied_head(tensors) or (None, None)
    merged = {tensor.name: _merged(kind, adapter, tensor) for tensor in (*tensors, *([head] if head else []))}
    config = {}
    if head and embedding:
        if not (merged[head.name].differs or merged[embedding.name].differs) or same_rows(adapter, *_modules(embedding, head)):
            del merged[head.name]
        else:  # trained apart: from here on they are two weights
            config = {"tie_word_embeddings": False}
    if left := adapter.left():
        raise CannotStreamError(f"{len(left)} adapter tensors match no tensor of the base, {min(left)} among them")
    return Plan([part.new(dtype, dequantised) for part in merged.values()], config)


def kind_of(adapter: AdapterFile) -> Kind:
    """What is known of the adapter's kind. Raises `CannotStreamError` where one of its settings means more than that."""
    config = adapter.config
    kind = KINDS.get(str(config.get("peft_type")))
    if kind is None:
        raise CannotStreamError(f"{config.get('peft_type')} is not merged tensor by tensor")
    for option, value in config.items():
        if value not in (None, False, 0, "", [], {}) and option not in COMMON | kind.options:
            raise CannotStreamError(f"{option} is set")
    kind.check(config)
    return kind


def _merged(kind: Kind, adapter: AdapterFile, tensor: StoredTensor) -> _Merged:
    source = _replacement(adapter, tensor) or tensor
    changes = [change for change in (kind.find(adapter, tensor), find_rows(adapter, tensor)) if change]
    if len(changes) > 1:
        raise CannotStreamError(f"{tensor.name} changes in two ways")
    change = changes[0] if changes else None
    if (change or source is not tensor) and not (tensor.dtype in ARRAYS and source.dtype in ARRAYS):
        raise CannotStreamError(f"{tensor.name} is stored as {tensor.dtype}")
    if source.shape != tensor.shape or ((change or source is not tensor) and len(tensor.shape) > 2):
        raise CannotStreamError(f"{tensor.name} has the shape {tensor.shape}, the adapter's {source.shape}")
    return _Merged(tensor, source, change)


def _replacement(adapter: AdapterFile, tensor: StoredTensor) -> StoredTensor | None:
    """The adapter's whole tensor for the base's: of a module that was trained as a copy, of a bias, of the weight below an adapter."""
    module, leaf = split(tensor.name)
    places = (tensor.name, f"{module}.ln_tuning_layers.{leaf}", f"{module}.base_layer.{leaf}")
    return next((found for place in places if (found := adapter.take(PREFIX + place))), None)


def _tied_head(tensors: Sequence[StoredTensor]) -> tuple[StoredTensor, StoredTensor] | None:
    """The output layer's weight that the checkpoint leaves out because it is the embedding's, and the embedding; None where it has both."""
    names = {tensor.name for tensor in tensors}
    for tensor in tensors:
        module, leaf = split(tensor.name)
        head = HEADS.get(module.rpartition(".")[2])
        if head and leaf == "weight" and f"{head}.weight" not in names:
            alias = StoredTensor(f"{head}.weight", tensor.dtype, tensor.shape, tensor.file, tensor.offset, tensor.size)
            return alias, tensor
    return None


def _modules(*tensors: StoredTensor) -> tuple[str, str]:
    first, second = (split(tensor.name)[0] for tensor in tensors)
    return first, second


def _held(name: str, start: Any, dtype: str) -> HeldTensor:
    """A dequantised weight, rounded to `dtype` as a base that holds it would be."""
    values = np.array(start.detach().cpu().float().numpy())
    rounded = np.empty(values.shape, ARRAYS[dtype])
    if not narrow(values, dtype, rounded):
        raise ValueError(f"the weight {name} is not finite")
    return HeldTensor(name, dtype, rounded)
