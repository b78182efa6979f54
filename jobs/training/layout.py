"""Where the rows of a packed batch lie, and how those of like length are gathered into one grid for batched matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

# Rows are computed together while the grid has at most so many times the places that they have tokens.
GRID_WASTE = 1.25


class Segment(NamedTuple):
    """Tokens `start` to `stop` of the batch [1, tokens]: a row's own, after those from `prefix_start` to `prefix_stop`, which it shares."""

    start: int
    stop: int
    prefix_start: int = 0
    prefix_stop: int = 0

    @property
    def length(self) -> int:
        """Its own tokens."""
        return self.stop - self.start

    @property
    def prefix(self) -> int:
        """The tokens shared."""
        return self.prefix_stop - self.prefix_start


@dataclass(frozen=True)
class Block:
    """Neighbouring rows with one prefix as a grid [rows, longest].

    `queries` int64 [rows, longest] says which token stands at each place; what fills up a row stands after its end, where a causal row
    does not look, and `real` bool [rows, longest] tells it apart. `keys` int64 [rows, prefix + longest] likewise, prefix first.
    `query_places` int64 [tokens] are the places of the block's tokens in the one grid, `key_places` in the other.
    """

    start: int
    stop: int
    prefix_start: int
    prefix: int
    queries: Tensor
    keys: Tensor
    query_places: Tensor
    key_places: Tensor
    real: Tensor

    @property
    def longest(self) -> int:
        """Places of a row."""
        return self.queries.shape[1]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Block:
        """The block of neighbouring segments with the same prefix."""
        first, prefix = segments[0], segments[0].prefix
        lengths = torch.tensor([segment.length for segment in segments])[:, None]
        starts = torch.tensor([segment.start for segment in segments])[:, None]
        rows, longest = torch.arange(len(segments))[:, None], int(lengths.max())
        places = torch.arange(longest)[None]
        real = places < lengths
        queries = starts + torch.minimum(places, lengths - 1)
        shared = torch.arange(first.prefix_start, first.prefix_stop).expand(len(segments), -1)
        return cls(
            start=first.start,
            stop=segments[-1].stop,
            prefix_start=first.prefix_start,
            prefix=prefix,
            queries=queries,
            keys=torch.cat((shared, queries), dim=1),
            query_places=(rows * longest + places)[real],
            key_places=(rows * (prefix + longest) + prefix + places)[real],
            real=real,
        )

    def to(self, device: str | torch.device) -> Block:
        """The same on a device."""
        names = ("queries", "keys", "query_places", "key_places", "real")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def blocks_of(segments: Sequence[Segment]) -> tuple[Block, ...]:
    """The segments, in their order, in as few blocks as `GRID_WASTE` allows."""
    blocks: list[list[Segment]] = []
    for segment in segments:
        last = blocks[-1] if blocks else []
        together = [*last, segment]
        longest = max(member.length for member in together)
        alike = last and last[0][2:] == segment[2:]
        if alike and longest * len(together) <= GRID_WASTE * sum(member.length for member in together):
            last.append(segment)
        else:
            blocks.append([segment])
    return tuple(Block.of(block) for block in blocks)
