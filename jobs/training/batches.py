"""Rows of a micro-batch as tensors: laid end to end (packed), or padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jobs.data.encoding import Encoded
from jobs.training.attention import Segment


@dataclass(frozen=True)
class Batch:
    """A micro-batch. `input_ids` is [1, tokens] packed or [rows, longest] padded.

    `label_rows` int64 [labels] are the places, in the flattened batch, whose hidden state predicts a trained token; `labels` int64
    [labels] are those tokens. Packed: `position_ids` [1, tokens] and `segments`; padded: `attention_mask` [rows, longest].
    """

    input_ids: Tensor
    label_rows: Tensor
    labels: Tensor
    tokens: int
    position_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    segments: tuple[Segment, ...] = ()

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on a device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return Batch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            label_rows=self.label_rows.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            tokens=self.tokens,
            position_ids=move(self.position_ids),
            attention_mask=move(self.attention_mask),
            segments=self.segments,
        )


def pack(rows: Sequence[Encoded]) -> Batch:
    """Rows end to end, without padding: positions start anew with each row."""
    lengths = [len(row.ids) for row in rows]
    ends = np.cumsum(lengths)
    label_rows, labels = _labels(rows, (ends - lengths).tolist())
    return Batch(
        input_ids=torch.from_numpy(np.concatenate([row.ids for row in rows]).astype(np.int64))[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
        label_rows=label_rows,
        labels=labels,
        tokens=int(ends[-1]),
        segments=tuple(zip((ends - lengths).tolist(), ends.tolist(), strict=True)),
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
