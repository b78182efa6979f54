"""Weights as checkpoints store them, widened to float32 and rounded back, by numpy alone.

numpy has no bfloat16: it is handled as the upper 16 bits of a float32. Rounding is to nearest, ties to even, as torch rounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Stored = NDArray[Any]

# Bytes of one number, by the dtype names of safetensors.
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
# The floating-point dtypes in torch's words.
FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# What is read and written here; bfloat16 as its bits.
ARRAYS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_LARGEST_BFLOAT16 = 0x7F7F


def widen(stored: Stored, dtype: str, out: Float32) -> None:
    """Writes `stored` (an array of `ARRAYS[dtype]`) into `out`, of the same shape; exact."""
    if dtype == "BF16":
        bits = out.view(np.uint32)
        bits[...] = stored
        np.left_shift(bits, 16, out=bits)
    else:
        out[...] = stored


def narrow(values: Float32, dtype: str, out: Stored) -> bool:
    """Rounds `values` to `dtype` into `out` (an array of `ARRAYS[dtype]`); `values` are lost. False where a number is not finite there."""
    if not np.isfinite(values).all():
        return False
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            out[...] = values
        return dtype == "F32" or bool(np.isfinite(out).all())
    bits = values.view(np.uint32)
    # Half of the last place that stays, less one if that place is even: what is carried up is then rounded to nearest, ties to even.
    half = np.right_shift(bits, 16)
    half &= 1
    half += 0x7FFF
    bits += half
    np.right_shift(bits, 16, out=bits)
    out[...] = bits
    return bool(((out & 0x7FFF) <= _LARGEST_BFLOAT16).all())
