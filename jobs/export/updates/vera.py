"""VeRA (Kopiczko et al. 2023, arXiv:2310.11454): one pair of random matrices for all layers, and two vectors for each."""

from __future__ import annotations

import numpy as np

from jobs.export.adapter_file import AdapterFile
from jobs.export.floats import Float32
from jobs.export.shards import StoredTensor
from jobs.export.updates.change import Apply, CannotStreamError, Change, Kind, check_shape, split
from jobs.export.updates.product import product


def find(adapter: AdapterFile, tensor: StoredTensor) -> Change | None:
    """W + (b * B) @ (d * A), with as many rows of B and columns of A as the layer has. The matrices must be in the adapter's file."""
    module, leaf = split(tensor.name)
    vectors = adapter.take_all(module, "vera_lambda_b", "vera_lambda_d") if leaf == "weight" else None
    if not vectors:
        return None
    down, up = adapter.take("base_model.vera_A"), adapter.take("base_model.vera_B")
    if not (down and up):
        raise CannotStreamError("the adapter's file lacks the random matrices")
    outputs = vectors[0].shape[0]
    transposed = bool(adapter.config.get("fan_in_fan_out"))
    inputs = tensor.shape[0 if transposed else -1]
    check_shape(tensor, (inputs, outputs) if transposed else (outputs, inputs))

    def load() -> Apply:
        left = vectors[0].floats()[:, None] * up.floats()[:outputs]
        right = vectors[1].floats()[:, None] * down.floats()[:, :inputs]

        def apply(rows: Float32, first: int) -> None:
            part = slice(first, first + len(rows))
            rows += product(left, np.ascontiguousarray(right[:, part])).T if transposed else product(left[part], right)

        return apply

    return Change(load)


VERA = Kind(
    find, frozenset({"r", "vera_dropout", "d_initial", "save_projection", "projection_prng_key", "fan_in_fan_out", "bias", "init_weights"})
)
