"""Causal attention within the rows of a packed batch, forward and backward by batched matrix products over grids of like rows.

torch's CPU kernel (`_scaled_dot_product_flash_attention_for_cpu_backward`) takes about a millisecond a call, a third of a step of rows
of a hundred tokens. Here the heads that share a key form one matrix and the rows of a block one batch; scores are float32, and queries
are taken some at a time, so that keys that come after them are not computed in vain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import torch
from torch import Tensor

from jobs.training import regions
from jobs.training.layout import Block

# Places of a row whose queries are computed at once, and so the keys computed in vain.
PLACES_AT_ONCE = 96
# Shares of rows up to this long are kept for the backward pass; those of longer ones are computed again, which costs one product in seven.
KEPT_TOKENS = 192


def segment_attention(  # noqa: PLR0917 as torch's
    query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Block], scale: float, window: int | None
) -> Tensor:
    """Query [tokens, heads, width], key and value [tokens, key heads, ...] -> [tokens, heads, value width], with gradients.

    `window` is how many tokens a token sees, itself included (Mistral's sliding window); None means all before it.
    """
    result: Tensor = _SegmentAttention.apply(query, key, value, blocks, scale, window)  # type: ignore[no-untyped-call]
    return result


@dataclass
class _Grid:
    """Query, key and value of a block laid out, [rows, key heads, ...], and what is kept of its softmax (None: to be computed again)."""

    query: Tensor
    key: Tensor
    value: Tensor
    shares: list[Tensor | None]

    def tensors(self) -> list[Tensor | None]:
        """In the order that `of` takes them in."""
        return [self.query, self.key, self.value, *self.shares]

    @classmethod
    def of(cls, tensors: Iterable[Tensor | None], chunks: int) -> Self:
        """From the next of the tensors."""
        query, key, value, *shares = islice(tensors, 3 + chunks)
        assert query is not None  # noqa: S101 for mypy: the shares alone may be wanting
        assert key is not None  # noqa: S101
        assert value is not None  # noqa: S101
        return cls(query, key, value, shares)


class _SegmentAttention(torch.autograd.Function):
    """All that is kept is given to `save_for_backward`, so that gradient checkpointing can drop it."""

    # The grids of a block go when its gradients are there.
    clear_saved_tensors_on_access = True

    @staticmethod
    def forward(  # noqa: PLR0917 autograd passes arguments by position
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Block], scale: float, window: int | None
    ) -> Tensor:
        """Attends block by block."""
        kept: list[Tensor | None] = []
        answers = []
        with torch.autocast(query.device.type, enabled=False):
            for block in blocks:
                laid, laid_key, laid_value, scaled, wide_key = regions.lay(query, key, value, block.queries, block.keys, scale=scale)
                grid = _Grid(laid, laid_key, laid_value, [])
                pieces = []
                for chunk in _chunks(block):
                    shares = chunk.shares(scaled, wide_key, window, query.dtype)
                    pieces.append(torch.bmm(_flat(shares), chunk.keys(grid.value)))
                    grid.shares.append(shares if chunk.length <= KEPT_TOKENS else None)
                answer = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
                answers.append(regions.lift(answer.view(*grid.query.shape[:4], -1), block.query_places))
                kept += grid.tensors()
        output = answers[0] if len(answers) == 1 else torch.cat(answers)
        ctx.blocks, ctx.scale, ctx.window = blocks, scale, window
        ctx.save_for_backward(output, *kept)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value; those of a shared prefix are summed over its rows."""
        output, *saved = ctx.saved_tensors
        d_output = gradients[0]
        kept, parts, shared = _drained(saved), [], []
        with torch.autocast(output.device.type, enabled=False):
            for block in ctx.blocks:
                grid = _Grid.of(kept, sum(1 for _ in _chunks(block)))
                upstream, along = regions.lay_back(output, d_output, block.queries, block.real, key_heads=grid.key.shape[1])
                grids = _block_back(grid, block, upstream, along, ctx.scale, ctx.window)
                parts.append(regions.lift_back(*grids, block.query_places, block.key_places))
                if block.prefix:
                    shared.append((block, grids[1:]))
            joined = [part[0] if len(part) == 1 else torch.cat(part) for part in zip(*parts, strict=True)]
            for block, of_rows in shared:
                for target, gradient in zip(joined[1:], of_rows, strict=True):
                    of_prefix = gradient[:, :, : block.prefix].sum(dim=0, dtype=torch.float32).transpose(0, 1)
                    target[block.prefix_start : block.prefix_start + block.prefix] += of_prefix.to(target.dtype)
        return *joined, None, None, None


def _drained(tensors: list[Tensor | None]) -> Iterator[Tensor | None]:
    """The tensors in their order, none of which is held once it was given."""
    tensors.reverse()
    while tensors:
        yield tensors.pop()


@dataclass(frozen=True)
class _Chunk:
    """Places `start` to `stop` of every row of a block, and the `length` first keys, which hold all that they see."""

    start: int
    stop: int
    prefix: int

    @property
    def length(self) -> int:
        return self.prefix + self.stop

    def queries(self, grid: Tensor) -> Tensor:
        """The chunk's part of a grid [rows, key heads, longest, group, width]: [batch, places * group, width], a view."""
        group = grid.shape[3]
        return grid.flatten(0, 1).flatten(1, 2)[:, self.start * group : self.stop * group]

    def keys(self, grid: Tensor) -> Tensor:
        """Of a grid [rows, key heads, prefix + longest, width]: [batch, length, width], a view."""
        return grid.flatten(0, 1)[:, : self.length]

    def shares(self, scaled: Tensor, wide_key: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
        """The softmax [rows, key heads, places, group, length]."""
        scores = torch.bmm(self.queries(scaled), self.keys(wide_key).transpose(1, 2))
        rows, key_heads, _, group, _ = scaled.shape
        last = torch.arange(self.prefix + self.start, self.length, device=scaled.device)
        return regions.attend(
            scores.view(rows, key_heads, self.stop - self.start, group, self.length),
            last,
            torch.tensor(window or self.length, device=scaled.device),
            dtype=str(dtype).removeprefix("torch."),
        )


def _chunks(block: Block) -> Iterator[_Chunk]:
    """Parts of equal size, of at most `PLACES_AT_ONCE` places."""
    count = -(-block.longest // PLACES_AT_ONCE)
    size = -(-block.longest // count)
    for start in range(0, block.longest, size):
        yield _Chunk(start, min(start + size, block.longest), block.prefix)


def _flat(grid: Tensor) -> Tensor:
    """[rows, key heads, places, group, length] -> [batch, places * group, length]."""
    return grid.flatten(0, 1).flatten(1, 2)


def _block_back(  # noqa: PLR0917
    grid: _Grid, block: Block, upstream: Tensor, along: Tensor, scale: float, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the grids of query, key and value, in their shapes."""
    d_queries, d_key, d_value = [], None, None
    for place, chunk in enumerate(_chunks(block)):
        shares, grid.shares[place] = grid.shares[place], None
        if shares is None:
            shares = chunk.shares(grid.query.float() * scale, grid.key.float(), window, grid.query.dtype)
        gradient, key, value = chunk.queries(upstream), chunk.keys(grid.key), chunk.keys(grid.value)
        d_shares = torch.bmm(gradient, value.transpose(1, 2)).view(shares.shape)
        mean = along[:, :, chunk.start : chunk.stop]
        d_scores = _flat(regions.attend_back(shares, d_shares, mean, scale=scale))
        d_queries.append(torch.bmm(d_scores, key))
        own_key = torch.bmm(d_scores.transpose(1, 2), chunk.queries(grid.query))
        own_value = torch.bmm(_flat(shares).transpose(1, 2), gradient)
        if chunk.stop - chunk.start == block.longest:
            d_key, d_value = own_key, own_value
            break
        if d_key is None or d_value is None:
            d_key, d_value = (torch.zeros_like(laid.flatten(0, 1), dtype=torch.float32) for laid in (grid.key, grid.value))
        d_key[:, : chunk.length] += own_key
        d_value[:, : chunk.length] += own_value
    assert d_key is not None  # noqa: S101 for mypy: a block has a place
    assert d_value is not None  # noqa: S101
    d_query = d_queries[0] if len(d_queries) == 1 else torch.cat(d_queries, dim=1)
    return (
        d_query.view(grid.query.shape),
        d_key.to(grid.key.dtype).view(grid.key.shape),
        d_value.to(grid.value.dtype).view(grid.value.shape),
    )
