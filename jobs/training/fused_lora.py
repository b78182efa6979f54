"""LoRA layers of an unmodified PEFT model, base and update in one matrix product.

`[x | xA'] [W | sB]'` is x W' + s x A' B': the sum is made in the product's float32 accumulator and rounded once. Added to an output that is
already bfloat16, as everywhere else, an update smaller than half a unit in the last place is lost. Layers that read the same input (query,
key and value; gate and up) share one product.
"""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from jobs.models.mapped import let_go, weight_files
from jobs.training.switch import Switch

_ADAPTER = "default"


class FusedLora:
    """The groups of a model's LoRA layers. Inside `running` they take the one product, elsewhere PEFT's own forward."""

    def __init__(self, groups: Sequence[Group], switch: Switch, *, whole: bool) -> None:
        self.groups, self.switch, self.whole = groups, switch, whole

    def refresh(self) -> None:
        """Reads the trained matrices anew, after an update of them."""
        for group in self.groups:
            group.refresh()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Forward and backward within it are fused."""
        try:
            with self.switch.turned_on():
                yield
        finally:
            for group in self.groups:
                group.forget()


def fuse(model: Any, probe: Any, *, packed_weights: bool) -> FusedLora:
    """Groups the LoRA layers of a PEFT model whose forward is plain (no dropout, no variant, frozen linear base).

    `probe()` runs the model once, so that it is seen which layers read the same input. `packed_weights`: frozen float32 weights on a CPU
    in oneDNN's layout, in both orientations.
    """
    layers = [module for module in model.modules() if _is_lora(module)]
    plain = [layer for layer in layers if _is_plain(layer)]
    together: dict[int, list[Any]] = {}
    inputs: list[Tensor] = []  # kept until the end, so that no two have the same id

    def note(layer: Any, given: tuple[Tensor, ...]) -> None:
        inputs.append(given[0])
        together.setdefault(id(given[0]), []).append(layer)

    hooks = [layer.register_forward_pre_hook(note) for layer in plain]
    try:
        probe()
    finally:
        for hook in hooks:
            hook.remove()
    switch = Switch()
    scratch: dict[Any, Tensor] = {}
    before = weight_files(layer.base_layer.weight for layer in plain)
    groups = [_group(members, switch, scratch, packed_weights=packed_weights) for members in together.values()]
    let_go(model, before - weight_files(layer.base_layer.weight for layer in plain))
    grouped = sum(len(group.layers) for group in groups)
    return FusedLora(groups, switch, whole=grouped == len(layers))


def _group(layers: list[Any], switch: Switch, scratch: dict[Any, Tensor], *, packed_weights: bool) -> Group:
    weight = layers[0].base_layer.weight
    if hasattr(weight, "quant_state") or hasattr(weight, "SCB"):
        return QuantisedGroup(layers, switch, scratch)
    if packed_weights and weight.dtype == torch.float32 and weight.device.type == "cpu":
        return PackedGroup(layers, switch)
    return DenseGroup(layers, switch)


def _is_lora(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def _is_plain(layer: Any) -> bool:
    """Whether the layer's forward is base + scale * B A x and nothing else."""
    from peft.tuners.lora.layer import Linear

    kinds: list[type] = [Linear]
    bases: list[type] = [nn.Linear]
    try:
        from bitsandbytes.nn.modules import Linear4bit
        from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit
        from peft.tuners.lora.bnb import Linear8bitLt as LoraLinear8bit

        from jobs.models.int8 import DenseLinear8bit
    except ImportError:
        pass
    else:
        kinds += [LoraLinear4bit, LoraLinear8bit]
        bases += [Linear4bit, DenseLinear8bit]
    base = layer.base_layer
    return (
        type(layer) in kinds
        and type(base) in bases
        and layer.active_adapters == [_ADAPTER]
        and not layer.merged
        and not layer.lora_variant
        and not layer.lora_bias[_ADAPTER]
        and isinstance(layer.lora_dropout[_ADAPTER], nn.Identity)
        and not base.weight.requires_grad
        and (base.bias is None or not base.bias.requires_grad)
    )


class Group(ABC):
    """LoRA layers that read one input x [tokens, inputs]; their outputs and ranks stand side by side."""

    def __init__(self, layers: Sequence[Any], switch: Switch) -> None:
        self.layers = layers
        self.bases = [layer.base_layer for layer in layers]
        self.down = [layer.lora_A[_ADAPTER].weight for layer in layers]
        self.up = [layer.lora_B[_ADAPTER].weight for layer in layers]
        self.scales = [float(layer.scaling[_ADAPTER]) for layer in layers]
        self.outputs, self.ranks = [up.shape[0] for up in self.up], [down.shape[0] for down in self.down]
        self.inputs = self.down[0].shape[1]
        self.spans = list(zip(_spans(self.outputs), _spans(self.ranks), strict=True))
        self.dtype = self._arithmetic()
        device = self.down[0].device
        self.all_down = torch.empty(sum(self.ranks), self.inputs, dtype=self.dtype, device=device)
        self.bias = self._joined_bias()
        self._input: Tensor | None = None
        self._answers: list[Tensor | None] = []
        for place, layer in enumerate(layers):
            layer.forward = types.MethodType(_forward(self, switch, place, layer.forward), layer)

    def _arithmetic(self) -> torch.dtype:
        dtype: torch.dtype = self.bases[0].weight.dtype
        return dtype

    def _joined_bias(self) -> Tensor | None:
        biases = [base.bias for base in self.bases]
        if all(bias is None for bias in biases):
            return None
        given = [self.down[0].new_zeros(size) if bias is None else bias for bias, size in zip(biases, self.outputs, strict=True)]
        return torch.cat([bias.detach().to(self.dtype) for bias in given])

    @torch.no_grad()
    def refresh(self) -> None:
        """Reads A and sB."""
        for down, (_, ranks) in zip(self.down, self.spans, strict=True):
            self.all_down[ranks].copy_(down)
        self._refresh_up()

    def answer(self, place: int, x: Tensor) -> Tensor:
        """The output of one layer for x [..., inputs]; those of the others are kept until they are asked for with the same x."""
        if self._input is not x or self._answers[place] is None:
            outputs = _OneProduct.apply(x, self, *self.down, *self.up)  # type: ignore[no-untyped-call]
            self._input, self._answers = x, list(outputs)
        wanted, self._answers[place] = self._answers[place], None
        if not any(answer is not None for answer in self._answers):
            self.forget()
        assert wanted is not None  # noqa: S101 for mypy: it was made three lines above
        return wanted

    def forget(self) -> None:
        """Lets go of answers that nobody asked for."""
        self._input, self._answers = None, []

    @abstractmethod
    def _refresh_up(self) -> None: ...

    @abstractmethod
    def product(self, x: Tensor, down: Tensor) -> Tensor:
        """[tokens, outputs] from x and xA' [tokens, ranks]."""

    @abstractmethod
    def product_back(self, gradient: Tensor, *, wants_input: bool) -> tuple[Tensor, Tensor | None]:
        """From the outputs' gradient [tokens, outputs]: those of xA' and, where asked for, of x by way of W alone."""


class JoinedGroup(Group):
    """W and sB in one matrix."""

    @abstractmethod
    def _weight(self) -> Tensor:
        """[W | sB], [outputs, inputs + ranks]."""

    def product(self, x: Tensor, down: Tensor) -> Tensor:
        """See `Group`."""
        joined, weight = torch.cat((x, down), dim=1), self._weight().t()
        return joined @ weight if self.bias is None else torch.addmm(self.bias, joined, weight)

    def product_back(self, gradient: Tensor, *, wants_input: bool) -> tuple[Tensor, Tensor | None]:
        """See `Group`."""
        weight = self._weight()
        if not wants_input:
            return gradient @ weight[:, self.inputs :], None
        joined = gradient @ weight
        return joined[:, self.inputs :].contiguous(), joined[:, : self.inputs]


class DenseGroup(JoinedGroup):
    """A dense base, whose own weights become views into the one matrix, so that nothing is held twice."""

    def __init__(self, layers: Sequence[Any], switch: Switch) -> None:
        super().__init__(layers, switch)
        weight = self.bases[0].weight
        self.joined = torch.zeros(sum(self.outputs), self.inputs + sum(self.ranks), dtype=weight.dtype, device=weight.device)
        for base, (rows, _) in zip(self.bases, self.spans, strict=True):
            self.joined[rows, : self.inputs] = base.weight.data
            base.weight.data = self.joined[rows, : self.inputs]

    def _refresh_up(self) -> None:
        _write_up(self, self.joined[:, self.inputs :])

    def _weight(self) -> Tensor:
        return self.joined


class QuantisedGroup(JoinedGroup):
    """A base in 4 bits, or on a CPU in 8: its weights are dequantised for each use into a matrix that all groups of this shape write to in
    turn.
    """

    def __init__(self, layers: Sequence[Any], switch: Switch, scratch: dict[Any, Tensor]) -> None:
        super().__init__(layers, switch)
        shape = (sum(self.outputs), self.inputs + sum(self.ranks))
        device = self.down[0].device
        key = (shape, self.dtype)
        if key not in scratch:
            scratch[key] = torch.zeros(shape, dtype=self.dtype, device=device)
        self.scratch = scratch[key]
        self.all_up = torch.zeros(shape[0], sum(self.ranks), dtype=self.dtype, device=device)

    def _arithmetic(self) -> torch.dtype:
        dtype: torch.dtype = self.bases[0].compute_dtype
        return dtype

    def _refresh_up(self) -> None:
        _write_up(self, self.all_up)

    def _weight(self) -> Tensor:
        for base, (rows, _) in zip(self.bases, self.spans, strict=True):
            _dequantise(base, self.scratch[rows, : self.inputs])
        self.scratch[:, self.inputs :] = self.all_up
        return self.scratch


def _dequantise(base: Any, target: Tensor) -> None:
    if hasattr(base.weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        target.copy_(dequantize_4bit(base.weight.data, base.weight.quant_state))
    else:
        from jobs.models.int8 import write_dense

        write_dense(base, target)


class PackedGroup(Group):
    """A frozen float32 base on a CPU in oneDNN's own layout: on AMD, torch's MKL reaches less than half of its speed.

    Nothing is lost by a separate sum in float32, so that W and sB need not stand together.
    """

    def __init__(self, layers: Sequence[Any], switch: Switch) -> None:
        super().__init__(layers, switch)
        weight = torch.cat([base.weight.data for base in self.bases])
        self.forward_weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.backward_weight = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous())
        self.all_up = torch.zeros(sum(self.outputs), sum(self.ranks))

    def _refresh_up(self) -> None:
        _write_up(self, self.all_up)

    def product(self, x: Tensor, down: Tensor) -> Tensor:
        """See `Group`."""
        return _packed_product(x, self.forward_weight, self.bias).addmm_(down, self.all_up.t())

    def product_back(self, gradient: Tensor, *, wants_input: bool) -> tuple[Tensor, Tensor | None]:
        """See `Group`."""
        return gradient @ self.all_up, _packed_product(gradient, self.backward_weight, None) if wants_input else None


class _OneProduct(torch.autograd.Function):
    """`apply(x, group, *A, *B)` -> the outputs of the group's layers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, *matrices: Tensor) -> tuple[Tensor, ...]:
        del matrices  # read by `refresh`; given for the sake of their gradients
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, group.inputs).to(group.dtype)
            down = flat @ group.all_down.t()
            joined = group.product(flat, down)
        ctx.save_for_backward(flat, down)
        ctx.group, ctx.shape, ctx.dtype = group, x.shape, x.dtype
        return torch.split(joined.view(*x.shape[:-1], -1), group.outputs, dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, down), group = ctx.saved_tensors, ctx.group
        with torch.autocast(x.device.type, enabled=False):
            joined = gradients[0] if len(gradients) == 1 else torch.cat(gradients, dim=-1)
            joined = joined.reshape(len(x), -1).to(group.dtype)
            d_down, d_input = group.product_back(joined, wants_input=ctx.needs_input_grad[0])
            if d_input is not None:
                d_input = torch.addmm(d_input, d_down, group.all_down).view(ctx.shape).to(ctx.dtype)
            all_down, all_up = d_down.t() @ x, joined.t() @ down
        d_matrices = [all_down[ranks].to(matrix.dtype) for matrix, (_, ranks) in zip(group.down, group.spans, strict=True)]
        for matrix, scale, (rows, ranks) in zip(group.up, group.scales, group.spans, strict=True):
            d_matrices.append(all_up[rows, ranks].to(matrix.dtype).mul_(scale))
        return d_input, None, *d_matrices


def _forward(group: Group, switch: Switch, place: int, own: Any) -> Any:
    """A layer's forward: fused where the switch and the adapter are on, else PEFT's `own`."""

    def forward(self: Any, x: Tensor, *given: Any, **named: Any) -> Tensor:
        if not switch.on or self.disable_adapters or self.merged or given or named:
            answer: Tensor = own(x, *given, **named)
            return answer
        return group.answer(place, x)

    return forward


def _spans(sizes: Sequence[int]) -> list[slice]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _write_up(group: Group, target: Tensor) -> None:
    """The sB of each layer, in its rows and ranks of `target` [outputs, ranks]."""
    for up, scale, (rows, ranks) in zip(group.up, group.scales, group.spans, strict=True):
        target[rows, ranks] = (up * scale).to(target.dtype)


def _packed_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
