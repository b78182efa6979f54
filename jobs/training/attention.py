"""Block-diagonal causal attention over rows laid end to end, registered with transformers' `AttentionInterface`.

No mask function is registered for it, so transformers builds no mask; windows and soft-caps arrive as arguments and are honoured here,
anything else that would change the scores is refused (`Unpackable`), and the caller takes the padded path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

NAME = "graft_packed"
Segment = tuple[int, int]

# Short rows of like length are computed together: torch's CPU kernel takes most of a millisecond for the backward of each call.
SHORT_ROW_TOKENS = 128
GRID_WASTE = 1.5

# Arguments that models pass along and that have no bearing on the scores here.
_HARMLESS = frozenset(
    {"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states", "return_dict", "layer_idx"}
)


class Unpackable(Exception):
    """The attention of a model asks for something that the packed form does not do."""


class _Current:
    """The rows of the batch in hand. Not thread-local: autograd runs a CUDA backward, and with it recomputation, on threads of its own."""

    segments: Sequence[Segment] = ()
    grid: Grid | None = None


@dataclass(frozen=True)
class Grid:
    """Rows of a packed batch as a grid [rows, longest]: `gather` [rows * longest] says which token stands at each place (what fills up a
    row stands after its end, where a causal row does not look), `scatter` [tokens] the place of each token.
    """

    rows: int
    longest: int
    gather: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, segments: Sequence[Segment], device: Any) -> Grid | None:
        """The grid of rows that are short and much alike; None where row by row is the better way."""
        lengths = [end - start for start, end in segments]
        longest = max(lengths)
        if str(device) != "cpu" or longest > SHORT_ROW_TOKENS or longest * len(lengths) > GRID_WASTE * sum(lengths):
            return None
        places = torch.arange(longest)
        gather = torch.cat([start + places.clamp(max=end - start - 1) for start, end in segments])
        scatter = torch.cat([row * longest + places[:length] for row, length in enumerate(lengths)])
        return cls(len(lengths), longest, gather, scatter)

    def lay(self, tensor: Tensor) -> Tensor:
        """[1, heads, tokens, width] -> [rows, heads, longest, width]."""
        heads, width = tensor.shape[1], tensor.shape[3]
        return tensor[0].index_select(1, self.gather).view(heads, self.rows, self.longest, width).transpose(0, 1)

    def lift(self, tensor: Tensor) -> Tensor:
        """[rows, heads, longest, width] -> [1, tokens, heads, width]."""
        return tensor.transpose(1, 2).flatten(0, 1).index_select(0, self.scatter)[None]


@contextmanager
def packed(model: Any, segments: Sequence[Segment]) -> Iterator[None]:
    """Within it, forward and backward of `model` attend within `segments` (start, end) of a batch [1, tokens]."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    _Current.segments = segments
    _Current.grid = Grid.of(segments, model.device)
    try:
        yield
    finally:
        _Current.segments, _Current.grid = (), None
        model.set_attn_implementation(before)


def packed_attention(  # noqa: PLR0917 the signature is transformers'
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Query [1, heads, tokens, width], key and value [1, key heads, tokens, width] -> [1, tokens, heads, value width]."""
    unknown = [name for name, given in others.items() if given is not None and given is not False and name not in _HARMLESS]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is not None or unknown or not causal or query.shape[0] != 1:
        raise Unpackable(", ".join(unknown) or "a mask of its own")
    if query.dtype != value.dtype:  # autocast over float32 weights leaves the rotary embedding's float32 on query and key
        query, key = query.to(value.dtype), key.to(value.dtype)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if (grid := _Current.grid) is not None:
        laid = (grid.lay(tensor) for tensor in (query, key, value))
        return grid.lift(_explicit(*laid, scale=scale, dropout=dropout, window=sliding_window, cap=softcap)), None
    pieces = []
    # Split, not sliced: the gradient of a split is one concatenation, that of each slice a zero tensor as large as the batch.
    lengths = [end - start for start, end in _Current.segments]
    for q, k, v in zip(*(torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)), strict=True):
        length = q.shape[2]
        window = sliding_window if sliding_window and sliding_window < length else None
        if softcap:
            pieces.append(_explicit(q, k, v, scale=scale, dropout=dropout, window=window, cap=softcap))
        elif window:
            mask = _window_mask(length, window, query.device)
            pieces.append(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale))
        else:
            pieces.append(functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=scale))
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def register() -> None:
    """Makes the name known to transformers; repeating it does no harm."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """Bool [length, length]: a token sees itself and the `window` - 1 before it."""
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return mask & ~torch.ones(length, length, dtype=torch.bool, device=device).tril(-window)


def _explicit(q: Tensor, k: Tensor, v: Tensor, *, scale: float, dropout: float, window: int | None, cap: float | None) -> Tensor:
    """Attention written out, with scores in float32, and cap * tanh(score / cap) where there is a cap (Gemma 2, arXiv:2408.00118)."""
    with torch.autocast(q.device.type, enabled=False):
        scores = torch.matmul(q.float(), k.float().transpose(2, 3)) * scale
        if cap:
            scores = torch.tanh(scores / cap) * cap
        mask = _window_mask(q.shape[2], window or q.shape[2], q.device)
        shares = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1).to(q.dtype)
        return torch.matmul(functional.dropout(shares, p=dropout), v)
