"""Norms, rotary embedding and gated activation of an unmodified transformers model, run as regions with gradients written out.

Only modules whose own result the region gives, on random numbers, are changed, and only how their forward runs: class, parameters and
names stay. Inside `running` they take the region, elsewhere their own forward.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from jobs.training import regions
from jobs.training.switch import Switch

# The gated MLP of Llama and its many relatives, as transformers writes it.
_GATED = re.compile(r"self\.down_proj\(\s*self\.act_fn\(self\.gate_proj\((?P<x>\w+)\)\)\s*\*\s*self\.up_proj\((?P=x)\)\s*\)")
_ROTARY = "apply_rotary_pos_emb"
_EPSILONS = ("variance_epsilon", "eps")
# Largest difference from the module's own result that is rounding, as a share of the largest value.
_AGREEMENT = 1e-5


class Elementwise:
    """The modules of a model that may run as regions."""

    def __init__(self, model: nn.Module) -> None:
        self.switch = Switch()
        self.count = 0
        self._rotaries: dict[Any, tuple[Any, Any]] = {}
        sources = set()
        for module in model.modules():
            kind = type(module)
            if not kind.__module__.startswith("transformers.models."):
                continue
            sources.add(kind.__module__)
            own = self._norm(module) or self._gated(module)
            if own:
                self.count += 1
                module.forward = types.MethodType(_switched(self.switch, module.forward, own), module)
        for name in sorted(sources):
            rotary = getattr(sys.modules[name], _ROTARY, None)
            if rotary is not None and _rotates(rotary):
                self.count += 1
                self._rotaries[sys.modules[name]] = (rotary, _rotary_or(rotary))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Forward and backward within it run as regions."""
        for module, (_, ours) in self._rotaries.items():
            setattr(module, _ROTARY, ours)
        try:
            with self.switch.turned_on():
                yield
        finally:
            for module, (own, _) in self._rotaries.items():
                setattr(module, _ROTARY, own)

    def _norm(self, module: Any) -> Callable[..., Tensor] | None:
        """RMSNorm, with the weight as it is (Llama) or one more than it (Gemma)."""
        epsilon = next((getattr(module, name) for name in _EPSILONS if isinstance(getattr(module, name, None), float)), None)
        weight = getattr(module, "weight", None)
        if (
            not type(module).__name__.endswith("RMSNorm")
            or epsilon is None
            or weight is None
            or weight.ndim != 1
            or list(module.children())
        ):
            return None
        for offset in (0.0, 1.0):
            if _agrees(module, {"epsilon": epsilon, "offset": offset}):
                return partial(_norm, epsilon, offset)
        return None

    def _gated(self, module: Any) -> Callable[..., Tensor] | None:
        """down(activation(gate(x)) * up(x))."""
        if not _GATED.search(_one_expression(type(module).forward)):
            return None
        sample = torch.linspace(-6, 6, 97)
        for name, (function, _) in regions.ACTIVATIONS.items():
            if torch.allclose(module.act_fn(sample), function(sample), atol=1e-6):
                return partial(_mlp, name)
        return None


def _norm(epsilon: float, offset: float, module: Any, x: Tensor) -> Tensor:
    answer: Tensor = _RmsNorm.apply(x, module.weight, epsilon, offset)  # type: ignore[no-untyped-call]
    return answer


def _mlp(activation: str, module: Any, x: Tensor) -> Tensor:
    answer: Tensor = module.down_proj(_Gate.apply(module.gate_proj(x), module.up_proj(x), activation))  # type: ignore[no-untyped-call]
    return answer


def _switched(switch: Switch, own: Callable[..., Tensor], ours: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, x: Tensor) -> Tensor:
        return ours(self, x) if switch.on else own(x)

    return forward


@torch.no_grad()
def _agrees(module: Any, settings: dict[str, float]) -> bool:
    """Whether a norm gives what ours does. In float32, with a weight that tells the variants apart."""
    weight = module.weight.data
    try:
        module.weight.data = torch.linspace(0.5, 1.5, weight.shape[0])
        x = torch.linspace(-2, 3, 3 * weight.shape[0]).sin().view(1, 3, -1)
        expected, found = module(x), regions.rms_norm.function(x.view(3, -1), module.weight, **settings).view(1, 3, -1)
    finally:
        module.weight.data = weight
    return bool((expected - found).abs().max() <= _AGREEMENT * expected.abs().max())


@torch.no_grad()
def _rotates(rotary: Callable[..., tuple[Tensor, Tensor]]) -> bool:
    """Whether the function turns query and key [1, heads, tokens, width] as the region does."""
    if list(inspect.signature(rotary).parameters)[:4] != ["q", "k", "cos", "sin"]:
        return False
    angles = torch.linspace(0, 5, 12).view(1, 3, 4)
    cosine, sine = (torch.cat((part, part), dim=-1) for part in (angles.cos(), angles.sin()))
    query, key = torch.linspace(-1, 2, 48).view(1, 2, 3, 8), torch.linspace(3, -1, 24).view(1, 1, 3, 8)
    try:
        expected = rotary(query, key, cosine, sine)
    except (RuntimeError, TypeError, ValueError):
        return False
    found = regions.rotate.function(query[0].transpose(0, 1), key[0].transpose(0, 1), cosine[0], sine[0])
    return all(torch.allclose(left[0].transpose(0, 1), right, atol=1e-5) for left, right in zip(expected, found, strict=True))


def _rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key [1, heads, tokens, width] of a packed batch, turned; cosine and sine [1, tokens, width]."""
    query, key = _Rotate.apply(q[0].transpose(0, 1), k[0].transpose(0, 1), cos[0], sin[0])  # type: ignore[no-untyped-call]
    return query.transpose(0, 1)[None], key.transpose(0, 1)[None]


def _rotary_or(own: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """In place of a modeling module's `own` function, which is left what differs: a part of the width turned (GPT-NeoX), another layout."""

    def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        if given or named or len(q) != 1 or len(cos) != 1 or cos.shape[-1] != q.shape[-1]:
            return own(q, k, cos, sin, *given, **named)
        return _rotary(q, k, cos, sin)

    return rotary


class _RmsNorm(torch.autograd.Function):
    """`apply(x [..., width], weight [width], epsilon, offset)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, offset: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(flat, weight)
        ctx.settings = {"epsilon": epsilon, "offset": offset}
        return regions.rms_norm(flat, weight, **ctx.settings).view(x.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), settings = ctx.saved_tensors, ctx.settings
        gradient = gradients[0].reshape(x.shape)
        d_x = regions.rms_norm_back(gradient, x, weight, **settings).view(gradients[0].shape) if ctx.needs_input_grad[0] else None
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = regions.rms_norm_weight_back(gradient, x, epsilon=settings["epsilon"]).to(weight.dtype)
        return d_x, d_weight, None, None


class _Rotate(torch.autograd.Function):
    """`apply(query [tokens, heads, width], key, cosine [tokens, width], sine)`."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cosine, sine)
        return regions.rotate(query, key, cosine, sine)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        query, key = regions.rotate(gradients[0], gradients[1], cosine, -sine)
        return query, key, None, None


class _Gate(torch.autograd.Function):
    """`apply(inner [..., width], up, activation)`."""

    @staticmethod
    def forward(ctx: Any, inner: Tensor, up: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(inner, up)
        ctx.activation = activation
        width = inner.shape[-1]
        return regions.gate(inner.view(-1, width), up.view(-1, width), activation=activation).view(inner.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inner, up = ctx.saved_tensors
        width = inner.shape[-1]
        gradient = gradients[0].reshape(-1, width)
        both = regions.gate_back(gradient, inner.view(-1, width), up.view(-1, width), activation=ctx.activation)
        both = both.view(*inner.shape[:-1], 2 * width)
        return both[..., :width], both[..., width:], None


@cache
def _one_expression(forward: Callable[..., Any]) -> str:
    """The source of a forward(self, x) that is one expression; else nothing."""
    try:
        source = inspect.getsource(forward)
    except (OSError, TypeError):
        return ""
    statements = [line for line in source.splitlines()[1:] if line.strip() and not line.strip().startswith(("#", '"'))]
    return source if len(statements) <= 2 and list(inspect.signature(forward).parameters) == ["self", "x"] else ""
