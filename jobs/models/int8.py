"""A base of 8 bits on a CPU: each layer is one product with the weights that its codes stand for, in training and in evaluation alike.

bitsandbytes (0.50.2) computes so itself on a CPU while a layer trains. In evaluation it rounds the inputs to 8 bits too, as LLM.int8 does
on a GPU, but for the columns in which any token of the product has an outlier (Dettmers et al. 2022, arXiv:2208.07339): what one row gives
then hangs on the others beside it, and the model that is measured is not the one that is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn.modules import Linear8bitLt
from torch import Tensor, nn
from torch.nn import functional

# Numbers that are widened at once: they stay in a core's cache between two passes.
_NUMBERS_AT_ONCE = 2**17


class DenseLinear8bit(Linear8bitLt):
    """A frozen linear layer in 8 bits that computes in `compute_dtype`, whatever its input's."""

    compute_dtype: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        """[..., outputs] from x [..., inputs], in the dtype of x."""
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        answer: Tensor = _Product.apply(x.to(self.compute_dtype), self, bias)  # type: ignore[no-untyped-call]
        return answer.to(x.dtype)

    def dense(self) -> Tensor:
        """The weight that its codes stand for, [outputs, inputs] in `compute_dtype`."""
        weight = torch.empty(self.weight.shape, dtype=self.compute_dtype, device=self.weight.device)
        write_dense(self, weight)
        return weight


def compute_densely(model: nn.Module, dtype: torch.dtype) -> None:
    """Makes every 8-bit layer of `model` one of these, computing in `dtype`."""
    for layer in model.modules():
        if type(layer) is Linear8bitLt:
            changed: Any = layer
            changed.__class__ = DenseLinear8bit
            changed.compute_dtype = dtype


@torch.no_grad()
def write_dense(layer: Any, target: Tensor) -> None:
    """Writes the weight of a `Linear8bitLt` into `target` [outputs, inputs], in its dtype: codes of -127 to 127, each row by its largest
    absolute value, multiplied in float32.
    """
    scales = layer.weight.SCB if layer.state.SCB is None else layer.state.SCB
    codes, steps = layer.weight.data, scales.float().mul(1 / 127)[:, None]
    rows = max(1, _NUMBERS_AT_ONCE // codes.shape[1])
    for start in range(0, len(codes), rows):
        block = slice(start, start + rows)
        target[block] = codes[block].float().mul_(steps[block])


class _Product(torch.autograd.Function):
    """`apply(x [..., inputs], layer, bias)` -> [..., outputs]. The dense weight is made anew for the backward pass, not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: DenseLinear8bit, bias: Tensor | None) -> Tensor:
        ctx.layer = layer
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x, layer.dense(), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, (wants_input, _, wants_bias) = gradients[0], ctx.needs_input_grad
        with torch.autocast(gradient.device.type, enabled=False):
            d_input = gradient @ ctx.layer.dense() if wants_input else None
            d_bias = gradient.flatten(0, -2).sum(0) if wants_bias else None
        return d_input, None, d_bias
