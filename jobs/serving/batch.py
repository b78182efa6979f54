"""Rows that are answered together: a decoding step at a time, with one key-value cache that rows join and leave between steps.

A row's answer does not hang on its neighbours, but for the rounding of the arithmetic: it has its own positions, its own mask, and what is
drawn for it is a function of its seed and the place in its answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

# Columns that no row needs any more are cut off once there are so many.
_SLACK = 64


@dataclass
class Row:
    """A prompt (token ids), how its answer is drawn, and the answer so far. `top`: see `spec.Ask`."""

    prompt: list[int]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top: int = -1
    new: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Chosen:
    """The next token of a row; its log-probability and the likeliest tokens with theirs, where they were asked for."""

    token: int
    logprob: float = 0.0
    tops: tuple[tuple[int, float], ...] = ()


class Batch:
    """Rows of one model. `pad` is any token's id: what it stands before is masked."""

    def __init__(self, model: Any, pad: int) -> None:
        self.model, self.pad = model, pad
        self.device = next(model.parameters()).device
        self.rows: list[Row] = []
        self._cache: DynamicCache | None = None
        # (rows, columns): which columns of the cache hold a token of the row. The newest token has none yet.
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self.device)

    def join(self, rows: Sequence[Row]) -> list[Chosen]:
        """Reads the prompts of new rows, and gives the first token of each answer."""
        longest = max(len(row.prompt) for row in rows)
        ids = [[self.pad] * (longest - len(row.prompt)) + row.prompt for row in rows]
        mask = torch.tensor([[0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=self.device)
        cache = DynamicCache()
        logits = self._forward(torch.tensor(ids, device=self.device), mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        self._merge(cache, mask)
        self.rows += rows
        return self._choose(rows, logits)

    def step(self) -> list[Chosen]:
        """One token more for every row."""
        assert self._cache is not None  # noqa: S101
        ids = torch.tensor([[row.new[-1]] for row in self.rows], device=self.device)
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        positions = self._mask.sum(1, keepdim=True) - 1
        return self._choose(self.rows, self._forward(ids, self._mask, positions, self._cache))

    def keep(self, rows: Sequence[Row]) -> None:
        """Lets all other rows go."""
        if len(rows) == len(self.rows):
            return
        kept = [index for index, row in enumerate(self.rows) if any(row is one for one in rows)]
        self.rows = [self.rows[index] for index in kept]
        if not kept:
            self._cache, self._mask = None, self._mask[:0, :0]
            return
        picked = torch.tensor(kept, device=self.device)
        self._mask = self._mask[picked]
        unused = int(self._mask.any(0).to(torch.long).argmax())
        start = unused if unused >= _SLACK else 0
        self._mask = self._mask[:, start:]
        self._each(lambda states: states[picked, :, start:])

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """The logits behind each row's last token, (rows, vocabulary), in float32."""
        with torch.inference_mode():
            output = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
        return output.logits[:, -1].float()  # type: ignore[no-any-return]

    def _merge(self, cache: DynamicCache, mask: Tensor) -> None:
        """Puts the cache of new rows below that of the others, both as wide as the wider one: columns are added on the left."""
        if self._cache is None:
            self._cache, self._mask = cache, mask
            return
        width = max(self._mask.shape[1], mask.shape[1])
        old, new = width - self._mask.shape[1], width - mask.shape[1]
        self._mask = torch.cat([_widened(self._mask, old), _widened(mask, new)])
        for mine, theirs in zip(self._cache.layers, cache.layers, strict=True):
            mine.keys = torch.cat([_left(mine.keys, old), _left(theirs.keys, new)])
            mine.values = torch.cat([_left(mine.values, old), _left(theirs.values, new)])

    def _each(self, change: Any) -> None:
        assert self._cache is not None  # noqa: S101
        for layer in self._cache.layers:
            layer.keys, layer.values = change(layer.keys).contiguous(), change(layer.values).contiguous()

    def _choose(self, rows: Sequence[Row], logits: Tensor) -> list[Chosen]:
        likeliest = logits.argmax(-1).tolist()
        found = []
        for row, scores, best in zip(rows, logits, likeliest, strict=True):
            token = best if row.temperature == 0 else drawn(scores, row)
            row.new.append(token)
            found.append(_told(token, scores, row.top))
        return found


def drawn(scores: Tensor, row: Row) -> int:
    """A token drawn at the row's temperature from the likeliest ones that together have `top_p`: by its seed and its place alone."""
    shares, order = torch.softmax(scores / row.temperature, -1).sort(descending=True, stable=True)
    sums = shares.cumsum(0)
    # The token that reaches top_p is one of them.
    count = int((sums < row.top_p).sum()) + 1
    generator = torch.Generator().manual_seed((row.seed * 1_000_003 + len(row.new)) % 2**63)
    point = float(torch.rand((), generator=generator, dtype=torch.float64)) * float(sums[min(count, len(sums)) - 1])
    place = int(torch.searchsorted(sums, torch.tensor(point, dtype=sums.dtype, device=sums.device), right=True))
    return int(order[min(place, count - 1, len(order) - 1)])


def _told(token: int, scores: Tensor, top: int) -> Chosen:
    if top < 0:
        return Chosen(token)
    logs = scores.log_softmax(-1)
    values, places = logs.topk(top) if top else (logs[:0], logs[:0].long())
    tops = tuple((int(place), max(float(value), -1e4)) for place, value in zip(places, values, strict=True))
    own = float(logs[token])
    return Chosen(token, own if math.isfinite(own) else -1e4, tops)


def _widened(mask: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(mask, (columns, 0))


def _left(states: Tensor, columns: int) -> Tensor:
    """(rows, heads, columns, width) with so many columns more on the left."""
    return torch.nn.functional.pad(states, (0, 0, columns, 0))
