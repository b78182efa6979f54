"""Matrix products with torch's very bits, without torch where it can be."""

from __future__ import annotations

from functools import cache

import numpy as np

from jobs import cpu
from jobs.export.floats import Float32

# Up to so many products in a sum, numpy's BLAS adds them up in the order of torch's, where it has its kernels for AVX-512 (a test
# compares the bits); its kernels for older processors add up the borders of their tiles in another order.
SAME_ORDER = 128


@cache
def same_order() -> int:
    """How many products a sum may have on this processor for numpy's bits to be torch's."""
    return SAME_ORDER if "avx512f" in cpu.instructions() else 0


def product(left: Float32, right: Float32) -> Float32:
    """`left` [n, k] times `right` [k, m], bit for bit as torch computes it on a CPU. Sums of more than `same_order()` are left to torch."""
    result: Float32
    if left.shape[1] <= same_order():
        result = np.matmul(left, right)
        return result
    import torch  # takes longer to import than most merges take

    result = torch.mm(torch.from_numpy(left), torch.from_numpy(np.ascontiguousarray(right))).numpy()
    return result
