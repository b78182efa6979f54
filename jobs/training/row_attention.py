"""Causal attention row by row with torch's SDPA: whatever device, type and scores, and what every faster way is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from jobs.training.layout import Segment


@dataclass(frozen=True)
class Score:
    """What a layer asks of its scores: scale * query . key, capped at `softcap`, over at most `window` tokens, the own one included."""

    scale: float
    dropout: float
    window: int | None
    softcap: float | None

    def of(self, segments: Sequence[Segment], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query [1, heads, tokens, width], key and value [1, key heads, tokens, ...] -> [1, heads, tokens, value width]."""
        return torch.cat([self._of_row(segment, query, key, value) for segment in segments], dim=2)

    def _of_row(self, segment: Segment, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        q = query[:, :, segment.start : segment.stop]
        k, v = (_with_prefix(tensor, segment).repeat_interleave(groups, dim=1) for tensor in (key, value))
        mask = None
        if segment.prefix or (self.window and self.window < segment.length) or self.softcap:
            mask = _seen(segment.length, segment.prefix, self.window, query.device)
        if self.softcap and mask is not None:
            return self._capped(q, k, v, mask, self.softcap)
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=self.dropout, scale=self.scale
        )

    def _capped(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, cap: float) -> Tensor:
        """Scores in float32, capped at cap * tanh(score / cap) (Gemma 2, arXiv:2408.00118)."""
        with torch.autocast(q.device.type, enabled=False):
            scores = cap * torch.tanh(torch.matmul(q.float(), k.float().transpose(2, 3)) * self.scale / cap)
            shares = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1).to(q.dtype)
            return torch.matmul(functional.dropout(shares, p=self.dropout), v)


def _with_prefix(tensor: Tensor, segment: Segment) -> Tensor:
    own = tensor[:, :, segment.start : segment.stop]
    return torch.cat((tensor[:, :, segment.prefix_start : segment.prefix_stop], own), dim=2) if segment.prefix else own


def _seen(length: int, prefix: int, window: int | None, device: torch.device) -> Tensor:
    """Bool [length, prefix + length]: the token at place i sees those up to `prefix` + i, at most `window` of them."""
    last = torch.arange(prefix, prefix + length, device=device)[:, None]
    key = torch.arange(prefix + length, device=device)[None]
    return (key <= last) & (key > last - (window or prefix + length))
