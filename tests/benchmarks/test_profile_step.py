"""What a profile is read as: kinds of operation, and the products behind the FLOPs."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gemm import Product, flops, measure_products
from benchmarks.profile_step import Operation, Watched, product_of, products, shares


@pytest.mark.parametrize(
    ("name", "shapes", "expected"),
    [
        ("aten::mm", ((5, 3), (3, 7)), (Product(5, 3, 7), 1)),
        ("aten::addmm", ((7,), (5, 3), (3, 7)), (Product(5, 3, 7), 1)),
        ("aten::bmm", ((4, 5, 3), (4, 3, 7)), (Product(5, 3, 7), 4)),
        ("aten::baddbmm", ((4, 5, 7), (4, 5, 3), (4, 3, 7)), (Product(5, 3, 7), 4)),
        ("mkldnn::_linear_pointwise", ((2, 5, 3), (7, 3), ()), (Product(10, 3, 7), 1)),
        ("aten::mul", ((5, 3), (5, 3)), None),
    ],
)
def test_the_product_behind_an_operation(name, shapes, expected):
    assert product_of(Operation(name, 1.0, shapes)) == expected


def test_products_are_counted_and_shares_add_up():
    operations = [
        Operation("aten::mm", 0.4, ((5, 3), (3, 7))),
        Operation("aten::mm", 0.1, ((5, 3), (3, 7))),
        Operation("aten::bmm", 0.2, ((2, 5, 3), (2, 3, 7))),
        Operation("aten::add", 0.05, ()),
        Operation("autograd::engine::evaluate_function: MulBackward0", 0.05, ()),
    ]
    assert products(operations) == {Product(5, 3, 7): 4}
    assert flops(Product(5, 3, 7)) == 210
    found = shares(Watched(seconds=1.0, tokens=10, operations=operations))
    assert sum(found.values()) == pytest.approx(1.0)
    assert {kind: round(share, 9) for kind, share in found.items() if share > 1e-9} == {
        "matrix products": 0.5, "attention products": 0.2, "other operations of torch": 0.05, "autograd and its functions": 0.05,
        "Python and the rest": 0.2,
    }  # fmt: skip


def test_rates_are_measured():
    (row,) = measure_products([Product(64, 64, 64)])
    assert row.product == Product(64, 64, 64)
    assert min(row.bf16, row.fp32, row.fp32_packed) > 0
    assert (row.bf16_packed or 0) > 0 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else row.bf16_packed is None
