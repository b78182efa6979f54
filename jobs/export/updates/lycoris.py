"""LoHa (Hyeon-Woo et al. 2021, arXiv:2108.06098) and LoKr (Yeh et al. 2023, arXiv:2309.14859) on linear layers."""

from __future__ import annotations

import numpy as np

from jobs.export.adapter_file import AdapterFile
from jobs.export.floats import Float32
from jobs.export.shards import StoredTensor
from jobs.export.updates.change import Apply, Change, Kind, check_shape, split
from jobs.export.updates.product import product

_OPTIONS = frozenset({"r", "alpha", "rank_pattern", "alpha_pattern", "rank_dropout", "module_dropout", "init_weights"})


def find_loha(adapter: AdapterFile, tensor: StoredTensor) -> Change | None:
    """W + scale * (A1 @ B1) * (A2 @ B2), the products of two low-rank pairs multiplied number by number."""
    module, leaf = split(tensor.name)
    pairs = adapter.take_all(module, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b") if leaf == "weight" else None
    if not pairs:
        return None
    check_shape(tensor, (pairs[0].shape[0], pairs[1].shape[1]))
    scale = _scale(adapter, module)

    def load() -> Apply:
        first_up, first_down, second_up, second_down = (part.floats() for part in pairs)

        def apply(rows: Float32, first: int) -> None:
            part = slice(first, first + len(rows))
            update = product(first_up[part], first_down)
            update *= product(second_up[part], second_down)
            update *= scale
            rows += update

        return apply

    return Change(load)


def find_lokr(adapter: AdapterFile, tensor: StoredTensor) -> Change | None:
    """W + scale * kron(W1, W2), either factor a matrix or the product of a low-rank pair."""
    module, leaf = split(tensor.name)
    if leaf != "weight":
        return None
    one, two = _factor(adapter, module, "lokr_w1"), _factor(adapter, module, "lokr_w2")
    if not (one and two):
        return None
    check_shape(tensor, (one[0].shape[0] * two[0].shape[0], one[-1].shape[1] * two[-1].shape[1]))
    scale = _scale(adapter, module)

    def load() -> Apply:
        outer, inner = _matrix(one), _matrix(two)

        def apply(rows: Float32, first: int) -> None:
            at, within = np.divmod(np.arange(first, first + len(rows)), len(inner))
            update = (outer[at][:, :, None] * inner[within][:, None, :]).reshape(rows.shape)
            update *= scale
            rows += update

        return apply

    return Change(load)


def _factor(adapter: AdapterFile, module: str, name: str) -> list[StoredTensor] | None:
    return adapter.take_all(module, name) or adapter.take_all(module, f"{name}_a", f"{name}_b")


def _matrix(factor: list[StoredTensor]) -> Float32:
    return factor[0].floats() if len(factor) == 1 else product(factor[0].floats(), factor[1].floats())


def _scale(adapter: AdapterFile, module: str) -> float:
    return adapter.setting("alpha", module, "alpha_pattern") / adapter.setting("r", module, "rank_pattern")


LOHA = Kind(find_loha, _OPTIONS)
LOKR = Kind(find_lokr, _OPTIONS | {"decompose_both", "decompose_factor", "rank_dropout_scale"})
