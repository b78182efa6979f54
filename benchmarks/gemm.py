"""How fast this machine multiplies matrices, at given shapes: torch's own way and oneDNN's packed weights, in bfloat16 and float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

_SECONDS = 0.25
_LEAST = 5


class Product(NamedTuple):
    """[rows, inner] x [inner, columns]."""

    rows: int
    inner: int
    columns: int


def flops(product: Product) -> int:
    """A multiplication and an addition for each of its terms."""
    return 2 * product.rows * product.inner * product.columns


@dataclass(frozen=True)
class Rates:
    """Median GFLOP/s of a product as `F.linear` makes it, and with the weight in oneDNN's layout (None: oneDNN has none on this CPU)."""

    product: Product
    bf16: float
    bf16_packed: float | None
    fp32: float
    fp32_packed: float | None

    def to_json(self, *, count: int, share: float) -> dict[str, Any]:
        """With how often a step made it, and its share of all arithmetic."""
        return {
            "shape": list(self.product),
            "count": count,
            "share": round(share, 4),
            "bf16": round(self.bf16, 1),
            "bf16_packed": self.bf16_packed and round(self.bf16_packed, 1),
            "fp32": round(self.fp32, 1),
            "fp32_packed": self.fp32_packed and round(self.fp32_packed, 1),
        }


def measure_products(products: Sequence[Product]) -> list[Rates]:
    """The rates of each product, one after the other."""
    import torch

    found = []
    with torch.inference_mode():
        for product in products:
            plain16, packed16 = _rates(product, torch.bfloat16)
            plain32, packed32 = _rates(product, torch.float32)
            found.append(Rates(product, plain16, packed16, plain32, packed32))
    return found


def _rates(product: Product, dtype: Any) -> tuple[float, float | None]:
    import torch

    x = torch.randn(product.rows, product.inner, dtype=torch.float32).to(dtype)
    weight = torch.randn(product.columns, product.inner, dtype=torch.float32).to(dtype)
    plain = _median_seconds(lambda: torch.nn.functional.linear(x, weight))
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return flops(product) / plain / 1e9, None
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    one_dnn = _median_seconds(lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""))
    return flops(product) / plain / 1e9, flops(product) / one_dnn / 1e9


def _median_seconds(call: Callable[[], object]) -> float:
    for _ in range(2):
        call()
    times: list[float] = []
    while sum(times) < _SECONDS or len(times) < _LEAST:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times)
