"""The elementwise pieces of a step: one pass over memory each once compiled (`jobs.training.region`), plain torch until then.

They contain no matrix product and draw no random number; arithmetic is float32. A grid holds rows of like length: queries
[rows, key heads, longest, group, width], keys [rows, key heads, prefix + longest, width] (`jobs.training.layout.Block`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from jobs.training.region import region

# Lower than any score, and a number: minus infinity would make NaN of a place that sees nothing.
_UNSEEN = -1e30


def _gelu_slope(x: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x.square()) * (1 / math.sqrt(2 * math.pi))
    return 0.5 * (1 + torch.erf(x * math.sqrt(0.5))) + x * density


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    bent = torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    return 0.5 * (1 + bent) + 0.5 * x * (1 - bent.square()) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x.square())


def _silu_slope(x: Tensor) -> Tensor:
    sigmoid = torch.sigmoid(x)
    return sigmoid * (1 + x * (1 - sigmoid))


# Activations of gated MLPs with their derivatives (Hendrycks and Gimpel 2016, arXiv:1606.08415).
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "silu": (functional.silu, _silu_slope),
    "gelu": (functional.gelu, _gelu_slope),
    "gelu_tanh": (lambda x: functional.gelu(x, approximate="tanh"), _gelu_tanh_slope),
}


@region("*tokens heads width", "*tokens key_heads width", "*tokens key_heads value_width", "*rows *longest", "*rows *length")
def lay(query: Tensor, key: Tensor, value: Tensor, queries: Tensor, keys: Tensor, *, scale: float) -> tuple[Tensor, ...]:
    """Grids of the tokens at `queries` and `keys`: query, key and value in their own dtype, then query * `scale` and key in float32."""
    heads, key_heads = query.shape[1], key.shape[1]
    laid = query[queries].view(*queries.shape, key_heads, heads // key_heads, -1).transpose(1, 2).contiguous()
    laid_key, laid_value = key[keys].transpose(1, 2).contiguous(), value[keys].transpose(1, 2).contiguous()
    return laid, laid_key, laid_value, laid.float() * scale, laid_key.float().clone()


@region("*rows key_heads *longest group *length", "*longest", "")
def attend(scores: Tensor, last: Tensor, window: Tensor, *, dtype: str) -> Tensor:
    """Softmax of float32 scores, in `dtype`: a query sees the keys up to place `last` [longest], at most `window` [] of them."""
    key = torch.arange(scores.shape[4], device=scores.device)
    seen = ((key <= last[:, None]) & (key > last[:, None] - window))[:, None]
    shown = torch.where(seen, scores, _UNSEEN)
    shares = torch.exp(shown - shown.amax(-1, keepdim=True))
    return (shares / shares.sum(-1, keepdim=True)).to(getattr(torch, dtype))


@region("*rows key_heads *longest group value_width", "*tokens")
def lift(answer: Tensor, places: Tensor) -> Tensor:
    """[tokens, heads, value width] from a grid; `places` int64 [tokens] are row * longest + place in the row."""
    return answer.transpose(1, 2).flatten(2, 3).flatten(0, 1)[places]


@region("*tokens heads value_width", "*tokens heads value_width", "*rows *longest", "*rows *longest")
def lay_back(output: Tensor, d_output: Tensor, queries: Tensor, real: Tensor, *, key_heads: int) -> tuple[Tensor, Tensor]:
    """(the answers' gradient as a grid, zero where not `real`; its product with the answers, summed over the width, float32)."""
    split = (key_heads, output.shape[1] // key_heads)
    upstream = torch.where(real[..., None, None], d_output[queries], 0)
    along = (upstream.float() * output[queries].float()).sum(-1, keepdim=True)
    return upstream.view(*queries.shape, *split, -1).transpose(1, 2).contiguous(), along.view(*queries.shape, *split, 1).transpose(
        1, 2
    ).contiguous()


@region("*rows key_heads *longest group *length", "*rows key_heads *longest group *length", "*rows key_heads *longest group one")
def attend_back(shares: Tensor, d_shares: Tensor, along: Tensor, *, scale: float) -> Tensor:
    """The gradient of query * key, before it is scaled, from that of the softmax."""
    return (shares.float() * (d_shares.float() - along) * scale).to(shares.dtype)


@region(
    "*rows key_heads *longest group width", "*rows key_heads *length width", "*rows key_heads *length value_width", "*tokens", "*tokens"
)
def lift_back(d_query: Tensor, d_key: Tensor, d_value: Tensor, places: Tensor, key_places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value as [tokens, heads, width], without those of the prefix."""
    query = d_query.transpose(1, 2).flatten(2, 3).flatten(0, 1)[places]
    return query, d_key.transpose(1, 2).flatten(0, 1)[key_places], d_value.transpose(1, 2).flatten(0, 1)[key_places]


@region("*tokens width", "width")
def rms_norm(x: Tensor, weight: Tensor, *, epsilon: float, offset: float) -> Tensor:
    """RMSNorm: x / sqrt(mean(x^2) + epsilon) * (weight + offset) (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (normed * (weight.float() + offset)).to(x.dtype)


@region("*tokens width", "*tokens width", "width")
def rms_norm_back(d_output: Tensor, x: Tensor, weight: Tensor, *, epsilon: float, offset: float) -> Tensor:
    """The gradient of x."""
    wide = x.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    normed = wide * inverse
    scaled = d_output.float() * (weight.float() + offset)
    return ((scaled - normed * (scaled * normed).mean(-1, keepdim=True)) * inverse).to(x.dtype)


@region("*tokens width", "*tokens width")
def rms_norm_weight_back(d_output: Tensor, x: Tensor, *, epsilon: float) -> Tensor:
    """The gradient of the weight, float32 [width]."""
    wide = x.float()
    return (d_output.float() * wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)).sum(0)


@region("*tokens heads width", "*tokens key_heads width", "*tokens width", "*tokens width")
def rotate(query: Tensor, key: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding: x * cosine + (-second half of x, first half) * sine (Su et al. 2021,
    arXiv:2104.09864). With -sine it is its own gradient.
    """
    cosine, sine = cosine.float()[:, None], sine.float()[:, None]

    def turned(x: Tensor) -> Tensor:
        wide = x.float()
        first, second = wide.chunk(2, dim=-1)
        return (wide * cosine + torch.cat((-second, first), dim=-1) * sine).to(x.dtype)

    return turned(query), turned(key)


@region("*tokens width", "*tokens width")
def gate(inner: Tensor, up: Tensor, *, activation: str) -> Tensor:
    """activation(inner) * up (Shazeer 2020, arXiv:2002.05202)."""
    return (ACTIVATIONS[activation][0](inner.float()) * up.float()).to(inner.dtype)


@region("*tokens width", "*tokens width", "*tokens width")
def gate_back(d_output: Tensor, inner: Tensor, up: Tensor, *, activation: str) -> Tensor:
    """The gradients of inner and up, side by side: [tokens, 2 * width]."""
    function, slope = ACTIVATIONS[activation]
    wide, gradient = inner.float(), d_output.float()
    d_inner, d_up = gradient * up.float() * slope(wide), gradient * function(wide)
    return torch.cat((d_inner.to(inner.dtype), d_up.to(inner.dtype)), dim=-1)


@region("*rows vocabulary", "*rows")
def cross_entropy_tile(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """From scores of the output layer: (cross-entropy summed, float32 [], the gradient of the scores in their dtype)."""
    logits = scores.float()
    highest = logits.amax(-1, keepdim=True)
    powers = torch.exp(logits - highest)
    total = powers.sum(-1, keepdim=True)
    loss = (total.log() + highest).sum() - logits.gather(1, labels[:, None]).sum()
    wanted = torch.arange(logits.shape[1], device=labels.device) == labels[:, None]
    return loss, (powers / total - wanted.float()).to(scores.dtype)
