"""All rows of a packed batch in one call of torch's `flex_attention` (arXiv:2412.05496), over a mask of rows and what they share.

Which blocks of the mask are empty or full follows from the bounds of the rows, so the mask itself never exists: torch's own
`create_block_mask` makes it whole, a gigabyte at 32,000 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.training.layout import Segment
from jobs.training.row_attention import Score

# Tokens of a block, as torch has it.
BLOCK = 128
Bools = NDArray[np.bool_]


class FlexLayout:
    """The rows of a batch on a device, and the masks of it that layers have asked for, one for each window."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        self._segments = segments
        self._tokens = segments[-1].stop
        self._device = device
        self._masks: dict[int | None, object] = {}
        lengths = np.array([segment.length for segment in segments])

        def each_token(numbers: list[int]) -> Tensor:
            return torch.from_numpy(np.repeat(np.array(numbers, dtype=np.int32), lengths)).to(device)

        self._starts = each_token([segment.start for segment in segments])
        self._prefix_starts = each_token([segment.prefix_start for segment in segments])
        self._prefix_stops = each_token([segment.prefix_stop for segment in segments])
        tokens = torch.arange(self._tokens, dtype=torch.int32, device=device)
        self._positions = tokens - self._starts + self._prefix_stops - self._prefix_starts

    def mask(self, window: int | None) -> object:
        """The `BlockMask` of torch by which a token sees its row up to itself, and what the row shares, at most `window` tokens."""
        if window not in self._masks:
            self._masks[window] = self._block_mask(window)
        return self._masks[window]

    def _block_mask(self, window: int | None) -> object:
        from torch.nn.attention.flex_attention import BlockMask

        some, full = block_pairs(self._segments, window)
        partial = some & ~full
        return BlockMask.from_kv_blocks(
            *self._listed(partial),
            *self._listed(full),
            BLOCK_SIZE=BLOCK,
            mask_mod=self._sees(window),
            seq_lengths=(self._tokens, self._tokens),
        )

    def _listed(self, pairs: Bools) -> tuple[Tensor, Tensor]:
        """(how many key blocks a query block has, int32 [1, 1, blocks]; which, first, int32 [1, 1, blocks, blocks])."""
        counts, order = pairs.sum(axis=1), np.argsort(~pairs, axis=1, kind="stable")
        counted, listed = (torch.from_numpy(numbers.astype(np.int32))[None, None].to(self._device) for numbers in (counts, order))
        return counted, listed

    def _sees(self, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """The rule for a pair of places. It reads tensors by token alone, so that one kernel serves all batches, windows and none."""
        starts, positions = self._starts, self._positions
        prefix_starts, prefix_stops = self._prefix_starts, self._prefix_stops
        oldest = positions - (window or self._tokens) + 1

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            own = (key >= starts[query]) & (key <= query)
            shared = (key >= prefix_starts[query]) & (key < prefix_stops[query])
            return (own | shared) & (positions[key] >= oldest[query])

        return sees


def block_pairs(segments: Sequence[Segment], window: int | None) -> tuple[Bools, Bools]:
    """Bool [blocks, blocks] twice, by query block and key block: those with a pair that is seen, or may be, and those that
    are seen throughout by queries of one row (where several rows meet in a block of queries, its pairs are looked at one by one).
    """
    blocks = -(-segments[-1].stop // BLOCK)
    some, full = np.zeros((2, blocks, blocks), dtype=np.bool_)
    for row in segments:
        for block in range(row.start // BLOCK, (row.stop - 1) // BLOCK + 1):
            first, last = max(row.start, block * BLOCK), min(row.stop, (block + 1) * BLOCK) - 1
            whole = last - first + 1 == BLOCK
            for begin, end, shift in ((row.start, last + 1, 0), (row.prefix_start, row.prefix_stop, row.start - row.prefix_stop)):
                # Moved by `shift`, a prefix would lie right before its row, and distances were those of positions.
                seen = max(begin, first - shift - window + 1) if window else begin
                if seen >= end:
                    continue
                some[block, seen // BLOCK : (end - 1) // BLOCK + 1] = True
                inside = max(begin, last - shift - window + 1) if window else begin
                below = min(end, first - shift + 1) // BLOCK
                if whole and -(-inside // BLOCK) < below:
                    full[block, -(-inside // BLOCK) : below] = True
    return some, full


def flex(query: Tensor, key: Tensor, value: Tensor, layout: FlexLayout, score: Score) -> Tensor:
    """Query [1, heads, tokens, width], key and value [1, key heads, tokens, ...] -> [1, heads, tokens, value width].

    Compiled on CUDA; elsewhere torch's own plain form, which has no gradients.
    """
    cap = _cap(score.softcap, query.device) if score.softcap else None
    attend = _compiled() if query.is_cuda else _plain()
    return attend(
        query,
        key,
        value,
        score_mod=cap,
        block_mask=layout.mask(score.window),
        scale=score.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _plain() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@cache
def _compiled() -> Callable[..., Tensor]:
    """Compiled for the first length it meets, then once for all others; again where there is a soft-cap, no gradient, or a single block.

    (`dynamic=True` from the start would make numbers of the scale and the block size too, which are the kernel's constants.)
    """
    return torch.compile(_plain())


@cache
def _cap(softcap: float, device: torch.device) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Scores become softcap * tanh(score / softcap) (Gemma 2, arXiv:2408.00118)."""
    cap = torch.tensor(softcap, device=device)

    def capped(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped
