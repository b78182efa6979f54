"""Block-diagonal causal attention over rows laid end to end, registered with transformers' `AttentionInterface`.

No mask function is registered for it, so transformers builds no mask; windows and soft-caps arrive as arguments and are honoured here,
anything else that would change the scores is refused (`Unpackable`), and the caller takes the padded path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from jobs.training.kernels import Call, Kernel, Kernels, PackedRows
from jobs.training.layout import Block, Segment
from jobs.training.row_attention import Score
from jobs.training.segment_attention import segment_attention

NAME = "graft_packed"

# Arguments that models pass along and that have no bearing on the scores here.
_HARMLESS = frozenset(
    {"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states", "return_dict", "layer_idx"}
)


class Unpackable(Exception):
    """The attention of a model asks for something that the packed form does not do."""


@dataclass(frozen=True)
class Rows:
    """The rows of the batch in hand: with `blocks` computed by `segment_attention`, with `kernels` by those of a GPU, else row by row."""

    segments: Sequence[Segment]
    blocks: Sequence[Block]
    kernels: Kernels | None = None

    @cached_property
    def packed(self) -> PackedRows:
        """What is made once for all layers."""
        return PackedRows(self.segments)


class _Current:
    """Not thread-local: autograd runs a CUDA backward, and with it recomputation, on threads of its own."""

    rows: Rows | None = None


@contextmanager
def packed(model: Any, rows: Rows) -> Iterator[None]:
    """Within it, forward and backward of `model` attend within the rows of a batch [1, tokens]."""
    before = model.config._attn_implementation
    # The config's own setter reaches the parts of a composed model; the model's would walk over every module, twice a step.
    model.config._attn_implementation = NAME
    _Current.rows = rows
    try:
        yield
    finally:
        _Current.rows = None
        model.config._attn_implementation = before


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
    rows = _Current.rows
    if attention_mask is not None or unknown or not causal or query.shape[0] != 1 or rows is None:
        raise Unpackable(", ".join(unknown) or "a mask of its own")
    if query.dtype != value.dtype:  # autocast over float32 weights leaves the rotary embedding's float32 on query and key
        query, key = query.to(value.dtype), key.to(value.dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if rows.blocks and not softcap and not dropout:
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        return segment_attention(q, k, v, rows.blocks, scale, sliding_window)[None], None
    score = Score(scale, dropout, sliding_window, softcap)
    kernel = rows.kernels.of(Call.of(query, key, value, score), query.device) if rows.kernels else Kernel.ROWS
    return rows.packed.attend(kernel, query, key, value, score), None


def register() -> None:
    """Makes the name known to transformers; repeating it does no harm."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
