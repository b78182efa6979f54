"""The leading singular vectors of the loss's gradient by each layer's weight, without ever holding such a gradient.

Of a linear layer it is G = sum g' x over tokens (x its input, g the gradient of its output). G times a thin matrix needs x and g alone, so
subspace iteration takes a few passes over a few rows and two thin matrices a layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from jobs.methods.lora.layers import ADAPTER
from jobs.methods.lora.sampling import ROW_TOKENS, flat, passes, sample_rows
from jobs.methods.setup import Setup

_SPARE = 8
_PASSES = 4  # even: the last one gives the right side of a left basis


class _Gradient:
    """The subspace iteration of one layer. `left` is [outputs, k], `right` [inputs, k]; every pass makes the one from the other."""

    def __init__(self, layer: Any, generator: torch.Generator) -> None:
        wanted = 2 * layer.r[ADAPTER] + _SPARE
        self.inputs, self.outputs = layer.in_features, layer.out_features
        width = min(wanted, self.inputs, self.outputs)
        device = layer.get_base_layer().weight.device
        drawn = torch.randn(self.inputs, width, generator=generator).to(device)
        self.right, self.left = torch.linalg.qr(drawn).Q, torch.zeros(self.outputs, width, device=device)
        self.sum = torch.zeros_like(self.left)
        self.to_left = True

    def add(self, x: Tensor, gradient: Tensor) -> None:
        """Takes in some tokens: x [tokens, inputs], gradient [tokens, outputs]."""
        self.sum += gradient.t() @ (x @ self.right) if self.to_left else x.t() @ (gradient @ self.left)

    def end_pass(self, *, last: bool) -> None:
        """Makes the next basis; the last sum stays as it is, for its sizes."""
        if last:
            return
        if self.to_left:
            self.left, self.sum = torch.linalg.qr(self.sum).Q, torch.zeros_like(self.right)
        else:
            self.right, self.sum = torch.linalg.qr(self.sum).Q, torch.zeros_like(self.left)
        self.to_left = not self.to_left

    def found(self) -> tuple[Tensor, Tensor]:
        """(U [outputs, k], V [inputs, k]), the largest singular value first; signs are such that U's largest entry is positive."""
        right, _, turned = torch.linalg.svd(self.sum, full_matrices=False)  # G' left = V S U'
        left = self.left @ turned.t()
        signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
        return left * signs, right * signs


def gradient_directions(model: Any, layers: dict[str, Any], setup: Setup) -> dict[str, tuple[Tensor, Tensor]]:
    """For each LoRA layer the leading singular vectors (U, V) of the gradient by the weight below it, of the loss on a few training rows.

    The adapter of the PEFT `model` must still be at its start, where it adds nothing.
    """
    rows = sample_rows(setup, "LoRA-GA")
    generator = torch.Generator().manual_seed(setup.seed)
    made = {name: _Gradient(layer, generator) for name, layer in layers.items()}
    hooks = [_watch(layer.get_base_layer(), made[name]) for name, layer in layers.items()]
    # Frozen embeddings give an output without gradient, and with it all layers up to the first adapter.
    hooks.append(model.get_input_embeddings().register_forward_hook(lambda _m, _i, output: output.detach().requires_grad_()))
    try:
        with torch.enable_grad(), model.disable_adapter():
            for number, one in enumerate(passes(model, rows, _PASSES, setup)):
                for row, ids in one:
                    torch.autograd.backward(_loss(model, row, ids))
                for each in made.values():
                    each.end_pass(last=number == _PASSES - 1)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: each.found() for name, each in made.items()}


def _watch(layer: Any, sketch: _Gradient) -> Any:
    """Gives the sketch what the layer reads and the gradient of what it answers."""

    def see(_layer: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        x = flat(given[0])
        output.register_hook(lambda gradient: sketch.add(x, flat(gradient)))  # type: ignore[no-untyped-call]

    return layer.register_forward_hook(see)


def _loss(model: Any, row: Any, ids: Tensor) -> Tensor:
    """The summed cross-entropy of a row's trained tokens."""
    trained = torch.from_numpy(row.trained[1:ROW_TOKENS]).to(ids.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1][trained].float()
    return functional.cross_entropy(logits, ids[0, 1:][trained], reduction="sum")
