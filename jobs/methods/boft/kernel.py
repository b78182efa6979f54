"""The one operation for which PEFT's BOFT wants a CUDA kernel, in torch.

Without it PEFT takes a single factor, whatever the config says, and would first try to compile its kernel while the model is built. With
this in its place a spec means the same on every device.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.boft import layer
from torch import Tensor


class BlockDiagonal:
    """What PEFT's extension offers: blocks [factors, blocks, size, size] to matrices that hold them along their diagonal, and back."""

    def forward(self, blocks: Tensor) -> tuple[Tensor]:
        """([factors, width, width],) with `width` = blocks * size."""
        whole = [torch.block_diag(*factor) for factor in blocks]  # type: ignore[no-untyped-call]
        return (torch.stack(whole),)

    def backward(self, gradient: Tensor, blocks: Tensor) -> tuple[Tensor]:
        """The gradient of the blocks, in their shape, of that of the matrices."""
        factors, count, size, _ = blocks.shape
        tiles = gradient.reshape(factors, count, size, count, size)
        return (tiles.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).contiguous(),)


_peft: Any = layer
_peft._FBD_CUDA = BlockDiagonal()
