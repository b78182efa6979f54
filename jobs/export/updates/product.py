"""Matrix products with torch's very bits, without torch where it can be."""

from __future__ import annotations

import numpy as np

from jobs.export.floats import Float32

# Up to so many products in a sum, numpy's BLAS adds them up in the order of torch's (a test compares the bits).
SAME_ORDER = 128


def product(left: Float32, right: Float32) -> Float32:
    """`left` [n, k] times `right` [k, m], bit for bit as torch computes it on a CPU. Longer sums than `SAME_ORDER` are left to torch."""
    result: Float32
    if left.shape[1] <= SAME_ORDER:
        result = np.matmul(left, right)
        return result
    import torch  # takes longer to import than most merges take

    result = torch.mm(torch.from_numpy(left), torch.from_numpy(np.ascontiguousarray(right))).numpy()
    return result
