"""Rows of an embedding that were trained by themselves (peft's trainable tokens), as a method and as a part of another."""

from __future__ import annotations

import numpy as np

from jobs.export.adapter_file import PREFIX, AdapterFile
from jobs.export.floats import Float32
from jobs.export.shards import StoredTensor
from jobs.export.updates.change import Apply, CannotStreamError, Change, Kind, split

# Within the module, as its own method and within another one.
LEAVES = ("trainable_tokens_delta", "token_adapter.trainable_tokens_delta")


def find(adapter: AdapterFile, tensor: StoredTensor) -> Change | None:
    """Puts the trained rows in the place of the base's."""
    module, leaf = split(tensor.name)
    trained = _trained(adapter, module) if leaf == "weight" else None
    if not trained:
        return None
    indices = np.array(_indices(adapter, module))
    if trained.shape != (len(indices), *tensor.shape[1:]) or indices.max() >= tensor.shape[0]:
        raise CannotStreamError(f"the rows trained for {tensor.name} do not fit it")

    def load() -> Apply:
        values = trained.floats()

        def apply(rows: Float32, first: int) -> None:
            here = (indices >= first) & (indices < first + len(rows))
            rows[indices[here] - first] = values[here]

        return apply

    return Change(load)


def same_rows(adapter: AdapterFile, embedding: str, head: str) -> bool:
    """Whether rows of a tied pair (modules) were trained as one: peft stores them once, or twice alike."""
    one, other = _trained(adapter, embedding), _trained(adapter, head)
    return bool(one and (not other or (one.shape == other.shape and np.array_equal(one.floats(), other.floats()))))


def _trained(adapter: AdapterFile, module: str) -> StoredTensor | None:
    return next((found for leaf in LEAVES if (found := adapter.take(f"{PREFIX}{module}.{leaf}"))), None)


def _indices(adapter: AdapterFile, module: str) -> list[int]:
    """The rows of a module: one list for all, or one for each by the end of its name."""
    asked = adapter.config.get("token_indices") or adapter.config.get("trainable_token_indices")
    if isinstance(asked, dict):
        asked = next((value for key, value in asked.items() if module == key or module.endswith(f".{key}")), None)
    if not asked:
        raise CannotStreamError(f"the config does not say which rows of {module} were trained")
    return [int(index) for index in asked]


TRAINABLE_TOKENS = Kind(lambda adapter, tensor: None, frozenset({"token_indices", "init_weights"}))
