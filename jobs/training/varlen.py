"""All rows of a packed batch in one call of FlashAttention (arXiv:2307.08691), by `torch.nn.attention.varlen`.

The kernel aligns its causal mask to the last key of a row (`row + keys - queries`, in torch's flash_attn/mask.h), so a row that shares a
prefix is one with fewer queries than keys: the prefix's keys and values are laid before its own, and their gradients summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, cast

import torch
from torch import Tensor

from jobs.training.layout import Segment
from jobs.training.row_attention import Score


@dataclass(frozen=True)
class SharedKeys:
    """How keys [tokens, ...] are laid out for rows that share prefixes.

    `sources` int64 [keys]: the token of each place, a row's prefix before its own. `own` int64 [tokens]: the place of each token in its own
    row. `copies`: for each group of rows with one prefix, where the prefix begins and int64 [rows, prefix], the places it is copied to.
    """

    sources: Tensor
    own: Tensor
    copies: tuple[tuple[int, Tensor], ...]

    @classmethod
    def of(cls, segments: Sequence[Segment], device: torch.device) -> SharedKeys:
        """Of the rows of a batch, in their order."""
        ends = list(accumulate(segment.prefix + segment.length for segment in segments))
        starts = [end - segment.prefix - segment.length for segment, end in zip(segments, ends, strict=True)]
        sources = [torch.arange(*span) for row in segments for span in ((row.prefix_start, row.prefix_stop), (row.start, row.stop))]
        own = [torch.arange(end - row.length, end) for row, end in zip(segments, ends, strict=True)]
        copies = []
        for (begin, stop), group in groupby(zip(segments, starts, strict=True), lambda pair: pair[0][2:]):
            if stop > begin:
                first = torch.tensor([start for _, start in group])
                copies.append((begin, (first[:, None] + torch.arange(stop - begin)).to(device)))
        return cls(torch.cat(sources).to(device), torch.cat(own).to(device), tuple(copies))


@dataclass(frozen=True)
class VarlenLayout:
    """Where rows begin among queries and keys, int32 [rows + 1] as FlashAttention has it, and how many the longest has of each."""

    queries: Tensor
    keys: Tensor
    longest_queries: int
    longest_keys: int
    shared: SharedKeys | None

    @classmethod
    def of(cls, segments: Sequence[Segment], device: torch.device) -> VarlenLayout:
        """Of the rows of a batch, which lie end to end in the order given."""
        queries = [segment.length for segment in segments]
        keys = [segment.prefix + segment.length for segment in segments]
        bounds = [torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device) for lengths in (queries, keys)]
        shared = SharedKeys.of(segments, device) if any(segment.prefix for segment in segments) else None
        return cls(bounds[0], bounds[1], max(queries), max(keys), shared)


def varlen_attention(query: Tensor, key: Tensor, value: Tensor, layout: VarlenLayout, score: Score) -> Tensor:
    """Query [tokens, heads, width], key and value [tokens, key heads, width] -> [tokens, heads, width], with gradients.

    On CUDA, in bfloat16 or float16 (`kernels.why_not_varlen`); anything else is a `RuntimeError` of torch's.
    """
    from torch.nn.attention import varlen

    if layout.shared:
        key, value = (_LayOut.apply(tensor, layout.shared) for tensor in (key, value))  # type: ignore[no-untyped-call]
    result = varlen.varlen_attn(
        query,
        key,
        value,
        layout.queries,
        layout.keys,
        layout.longest_queries,
        layout.longest_keys,
        scale=score.scale,
        window_size=(score.window - 1 if score.window else -1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return cast(Tensor, result)


class _LayOut(torch.autograd.Function):
    """[tokens, ...] -> [keys, ...]. The gradient of a prefix is summed in float32, in the order of its rows, not by atomic additions."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, shared: SharedKeys) -> Tensor:
        ctx.shared = shared
        return tensor[shared.sources]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        laid, shared = gradients[0], ctx.shared
        result = laid[shared.own]
        for start, places in shared.copies:
            prefix = result[start : start + places.shape[1]]
            prefix += laid[places].sum(dim=0, dtype=torch.float32).to(prefix.dtype)
        return result, None
