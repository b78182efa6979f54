"""Which GPU kernel a layer's attention takes: FlashAttention over rows of any length, else flex_attention, else row by row.

What a kernel allows is known from torch's source (flash_attn/flash_api.cpp and sdp_utils.cpp; _inductor/kernel/flex) and from facts alone.
Whether it does on this device what it should is tried once, on a few small rows, against the plain way: output and gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.util import find_spec

import torch
from torch import Tensor

from jobs.training.flex import FlexLayout, flex
from jobs.training.layout import Segment
from jobs.training.row_attention import Score
from jobs.training.varlen import VarlenLayout, varlen_attention

_HALF = (torch.bfloat16, torch.float16)
# A prefix, two rows that share it, and a row alone: over several blocks of 128 tokens, and longer than the window that is tried.
_TRIED = (Segment(0, 23), Segment(23, 64, 0, 23), Segment(64, 170, 0, 23), Segment(170, 343))
_TRIED_WINDOW = 37
# Largest relative difference from float32 by row, of output and gradients; a token too many or too few is ten times that.
_AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 0.02, torch.float16: 0.005}


class Kernel(StrEnum):
    """A way to attend; the values are names for people."""

    VARLEN = "FlashAttention"
    FLEX = "flex_attention"
    ROWS = "row by row"


@dataclass(frozen=True)
class Device:
    """What is known of a device: torch's name of its kind, NVIDIA's compute capability (None: not NVIDIA's), whether triton is there."""

    kind: str
    capability: tuple[int, int] | None
    triton: bool

    @classmethod
    def of(cls, device: str) -> Device:
        """The device of that name in torch."""
        kind = torch.device(device).type
        nvidia = kind == "cuda" and torch.version.hip is None
        return cls(kind, torch.cuda.get_device_capability(device) if nvidia else None, find_spec("triton") is not None)


@dataclass(frozen=True)
class Call:
    """What a layer asks for: its scores, the type of the numbers, how wide and how many its heads are."""

    score: Score
    dtype: torch.dtype
    heads: int
    key_heads: int
    width: int
    value_width: int

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor, score: Score) -> Call:
        """Of query [1, heads, tokens, width], key and value [1, key heads, tokens, ...]."""
        return cls(score, query.dtype, query.shape[1], key.shape[1], query.shape[-1], value.shape[-1])


def why_not_varlen(device: Device, call: Call) -> str:
    """Empty where torch's FlashAttention does what is asked, with gradients."""
    capability = device.capability or (0, 0)
    large = capability in {(8, 0), (9, 0), (10, 0)}
    return _first(
        (capability < (8, 0), "needs an NVIDIA GPU of compute capability 8.0 or more"),
        (call.dtype not in _HALF, f"computes in bfloat16 or float16, not in {_named(call.dtype)}"),
        (bool(call.score.softcap), "knows no soft-cap"),
        (bool(call.score.dropout), "is without dropout"),
        (call.width != call.value_width, f"wants values as wide as keys (here {call.value_width} and {call.width})"),
        (call.width % 8 > 0 or call.width > 256, f"wants heads of a multiple of 8 numbers, at most 256 (here {call.width})"),
        (192 < call.width <= 224 and not large, f"has no gradients for heads of {call.width} numbers on this GPU"),
    )


def why_not_flex(device: Device, call: Call) -> str:
    """Empty where a compiled flex_attention does what is asked, with gradients."""
    capability, narrowest = device.capability or (0, 0), min(call.width, call.value_width)
    return _first(
        (capability < (7, 0), "needs an NVIDIA GPU of compute capability 7.0 or more"),
        (not device.triton, "needs triton"),
        (call.dtype == torch.bfloat16 and capability < (8, 0), "computes in bfloat16 from compute capability 8.0 on"),
        (bool(call.score.dropout), "is without dropout"),
        (narrowest < 16, f"wants heads of 16 numbers or more (here {narrowest})"),
    )


def _first(*obstacles: tuple[bool, str]) -> str:
    """What the first of the obstacles that is there says."""
    return next((says for there, says in obstacles if there), "")


_REASONS = {Kernel.VARLEN: why_not_varlen, Kernel.FLEX: why_not_flex}


class Kernels:
    """The kernels of a device, and what each kind of call was found to take."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.taken: dict[Call, Kernel] = {}
        self._reasons: dict[str, None] = {}

    @property
    def reasons(self) -> list[str]:
        """One sentence for each kind of call that is computed row by row, and for each kernel that failed its trial."""
        return list(self._reasons)

    def of(self, call: Call, device: torch.device) -> Kernel:
        """The first kernel that allows the call and stands the trial; a call of a kind that was met before is looked up."""
        if call not in self.taken:
            self.taken[call] = self._choose(call, device)
        return self.taken[call]

    def _choose(self, call: Call, device: torch.device) -> Kernel:
        against = []
        for kernel, why_not in _REASONS.items():
            reason = why_not(self._device, call)
            if not reason and (reason := failure(kernel, call, device)):
                self._reasons[f"{kernel} is not used on this device: it {reason}."] = None
            if not reason:
                return kernel
            against.append(f"{kernel} {reason}")
        self._reasons[f"Attention is computed row by row: {'; '.join(against)}."] = None
        return Kernel.ROWS


class PackedRows:
    """The rows of one batch; what a kernel needs to know of them is made at its first call and serves all layers and the backward pass."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._varlen: VarlenLayout | None = None
        self._flex: FlexLayout | None = None

    def attend(self, kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, score: Score) -> Tensor:
        """Query [1, heads, tokens, width], key and value [1, key heads, tokens, ...] -> [1, tokens, heads, value width]."""
        if kernel is Kernel.VARLEN:
            self._varlen = self._varlen or VarlenLayout.of(self._segments, query.device)
            q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
            return varlen_attention(q, k, v, self._varlen, score)[None]
        if kernel is Kernel.FLEX:
            self._flex = self._flex or FlexLayout(self._segments, query.device)
            return flex(query, key, value, self._flex, score).transpose(1, 2)
        return score.of(self._segments, query, key, value).transpose(1, 2)


@torch.enable_grad()
def failure(kernel: Kernel, call: Call, device: torch.device) -> str:
    """What a kernel does wrong on this device, as the end of a sentence; empty where it is right."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((call.heads, call.width), (call.key_heads, call.width), (call.key_heads, call.value_width), (call.heads, call.value_width))
    drawn = [torch.randn(1, heads, _TRIED[-1].stop, width, generator=generator).to(device, call.dtype) for heads, width in shapes]
    drawn[0] /= call.score.scale * call.width**0.5  # scores of about one, whatever the scale, so that rounding is that of common ones
    score = replace(call.score, window=call.score.window and min(call.score.window, _TRIED_WINDOW))
    try:
        with torch.autocast(device.type, enabled=False):
            found = _results(kernel, score, drawn)
            wanted = _results(Kernel.ROWS, score, [tensor.float() for tensor in drawn])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 compilers and drivers fail in ways of their own; what they say is kept in the reason
        return f"failed ({type(error).__name__}: {str(error).partition(chr(10))[0][:200]})"
    # By a tensor's `max`, in which a number that is none prevails.
    apart = float(torch.stack([(one - other).norm() / other.norm().clamp_min(1.0) for one, other in zip(found, wanted, strict=True)]).max())
    return "" if apart <= _AGREEMENT[call.dtype] else f"differs from rows alone (by {apart:.1e} of their size)"


def _results(kernel: Kernel, score: Score, drawn: Sequence[Tensor]) -> list[Tensor]:
    """Output, and gradients of query, key and value, from these three and the gradient from above."""
    query, key, value = (tensor.detach().requires_grad_() for tensor in drawn[:3])
    output = PackedRows(_TRIED).attend(kernel, query, key, value, score)
    return [output.detach(), *torch.autograd.grad(output, (query, key, value), drawn[3].transpose(1, 2))]


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
