"""The order of rows: a pure function of (seed, epoch), so that a resumed run continues exactly where it stopped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """int64 [count]: the rows of one epoch in random order, by the counter-based generator Philox keyed with (seed, epoch)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))).permutation(count)


def dropout_seed(seed: int, step: int, micro: int) -> int:
    """The seed of torch's generator for one micro-batch: distinct for every (seed, step, micro-batch), and below 2**63."""
    return int(np.random.SeedSequence([seed, step, micro]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class TokenBudget:
    """Micro-batches of at most `tokens` tokens in place of a number of rows. `lengths` are those of the rows; `padded`: padding counts."""

    tokens: int
    lengths: Sequence[int]
    padded: bool = False

    def cut(self, rows: Sequence[int]) -> list[list[int]]:
        """Row numbers in micro-batches, in their order, each as full as the next row allows; a row that is longer alone is by itself."""
        found: list[list[int]] = []
        total = longest = 0
        for row in rows:
            total, longest = total + self.lengths[row], max(longest, self.lengths[row])
            size = longest * (len(found[-1]) + 1) if found and self.padded else total
            if found and size <= self.tokens:
                found[-1].append(row)
            else:
                found.append([row])
                total = longest = self.lengths[row]
        return found


@dataclass(frozen=True)
class Order:
    """Which rows each step trains on. A step never crosses the border of an epoch: the last one of an epoch may be smaller.

    A step is of `micro_batch` x `gradient_accumulation` rows, in micro-batches of `micro_batch` rows or, with a `budget`, of its tokens.
    """

    rows: int
    micro_batch: int
    gradient_accumulation: int
    seed: int
    budget: TokenBudget | None = None

    @property
    def effective_batch(self) -> int:
        """Rows of a full step."""
        return self.micro_batch * self.gradient_accumulation

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every row once."""
        return math.ceil(self.rows / self.effective_batch)

    def total_steps(self, epochs: float, max_steps: int | None) -> int:
        """Steps of a run of `epochs` (fractions round up to a step), at most `max_steps`."""
        wanted = max(1, math.ceil(epochs * self.steps_per_epoch - 1e-9))
        return min(wanted, max_steps) if max_steps else wanted

    def micro_batches(self, first_step: int, last_step: int) -> Iterator[list[list[int]]]:
        """For each step from `first_step` to before `last_step` (counted from 0): the row numbers of its micro-batches."""
        known_epoch, order = -1, permutation(self.seed, 0, 0)
        for step in range(first_step, last_step):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != known_epoch:
                known_epoch, order = epoch, permutation(self.seed, epoch, self.rows)
            chosen = order[place * self.effective_batch : (place + 1) * self.effective_batch].tolist()
            if self.budget:
                yield self.budget.cut(chosen)
            else:
                yield [chosen[start : start + self.micro_batch] for start in range(0, len(chosen), self.micro_batch)]
