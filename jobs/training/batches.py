"""Rows of a micro-batch as tensors: laid end to end (packed), what they begin with in common only once, or padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.data.encoding import Encoded
from jobs.training.layout import Block, Segment, blocks_of
from jobs.training.prefixes import Group, group_rows


@dataclass(frozen=True)
class Batch:
    """A micro-batch. `input_ids` is [1, tokens] packed or [rows, longest] padded.

    `label_rows` int64 [labels] are the places, in the flattened batch, whose hidden state predicts a trained token; `labels` int64
    [labels] are those tokens. `tokens` is the sum of the rows' lengths, whatever is computed. Packed: `position_ids` [1, tokens],
    `segments`, and `blocks` of them where short rows are computed together; padded: `attention_mask` [rows, longest].
    """

    input_ids: Tensor
    label_rows: Tensor
    labels: Tensor
    tokens: int
    position_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    segments: tuple[Segment, ...] = ()
    blocks: tuple[Block, ...] = ()

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on a device."""
        if str(device) == "cpu":
            return self
        names = ("input_ids", "label_rows", "labels", "position_ids", "attention_mask")
        moved = {name: tensor.to(device, non_blocking=True) for name in names if (tensor := getattr(self, name)) is not None}
        return replace(self, **moved, blocks=tuple(block.to(device) for block in self.blocks))


def pack(rows: Sequence[Encoded], *, share_prefix: bool = False, grids: bool = False) -> Batch:
    """Rows end to end, without padding: positions start anew with each row, after its prefix where it shares one.

    `share_prefix`: what a group of rows begins with is laid down once, ahead of them. `grids`: the rows are laid out in `blocks` too.
    """
    groups = group_rows(rows) if share_prefix else [Group(tuple(range(len(rows))), 0)]
    ids: list[NDArray[np.int32]] = []
    positions: list[NDArray[np.int64]] = []
    segments: list[Segment] = []
    starts = [0] * len(rows)  # where each row's token 0 would stand, had it no prefix
    place = 0

    def lay(tokens: NDArray[np.int32], first: int, shared: tuple[int, int]) -> None:
        nonlocal place
        ids.append(tokens)
        positions.append(np.arange(first, first + len(tokens)))
        segments.append(Segment(place, place + len(tokens), *shared))
        place += len(tokens)

    for group in groups:
        shared = (place, place + group.prefix) if group.prefix else (0, 0)
        if group.prefix:
            lay(rows[group.rows[0]].ids[: group.prefix], 0, (0, 0))
        for row in group.rows:
            starts[row] = place - group.prefix
            lay(rows[row].ids[group.prefix :], group.prefix, shared)
    label_rows, labels = _labels(rows, starts)
    return Batch(
        input_ids=torch.from_numpy(np.concatenate(ids).astype(np.int64))[None],
        position_ids=torch.from_numpy(np.concatenate(positions))[None],
        label_rows=label_rows,
        labels=labels,
        tokens=sum(len(row.ids) for row in rows),
        segments=tuple(segments),
        blocks=blocks_of(segments) if grids else (),
    )


def pad(rows: Sequence[Encoded]) -> Batch:
    """Rows side by side, padded on the right; the attention mask hides the padding, so its id (0) is of no consequence."""
    longest = max(len(row.ids) for row in rows)
    ids, mask = np.zeros((len(rows), longest), dtype=np.int64), np.zeros((len(rows), longest), dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)], mask[place, : len(row.ids)] = row.ids, 1
    label_rows, labels = _labels(rows, [place * longest for place in range(len(rows))])
    return Batch(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        label_rows=label_rows,
        labels=labels,
        tokens=int(mask.sum()),
    )


def _labels(rows: Sequence[Encoded], starts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """A token at place t of a row is predicted at place t - 1."""
    places = [start + np.flatnonzero(row.trained) - 1 for row, start in zip(rows, starts, strict=True)]
    labels = np.concatenate([row.ids[row.trained] for row in rows]).astype(np.int64)
    return torch.from_numpy(np.concatenate(places)), torch.from_numpy(labels)
