"""What a maximum length cuts off, from the lengths that a survey found: figures and the bars of a histogram. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

BARS = 24
# Histograms are drawn in these units; the page scales them.
WIDTH, HEIGHT = 720, 200
MULTIPLE = 64


@dataclass(frozen=True)
class Bar:
    """Rows of `low` to `high` tokens. `x`, `y`, `width`, `height` are where the bar stands, `cut`: all of it is beyond the maximum."""

    low: int
    high: int
    rows: int
    share: float
    x: float
    y: float
    width: float
    height: float
    cut: bool


@dataclass(frozen=True)
class Cut:
    """What a `maximum` does: the shares of rows that are shortened, of tokens that are lost, and of rows that teach nothing then."""

    maximum: int
    rows_cut: float
    tokens_cut: float
    rows_lost: float
    x: float


@dataclass(frozen=True)
class Lengths:
    """The lengths of a survey's rows, in ascending order, with how many rows have each."""

    values: Sequence[int]
    counts: Sequence[int]
    first: Sequence[tuple[int, int]]
    untrained: int

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Lengths:
        """From `jobs.data.token_lengths`."""
        pairs = result["lengths"]
        first = [(int(value), int(count)) for value, count in result["first"]]
        return cls([int(value) for value, _ in pairs], [int(count) for _, count in pairs], first, int(result["untrained"]))

    @property
    def rows(self) -> int:
        """How many rows were looked at."""
        return sum(self.counts)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self.values[-1] if self.values else 0

    def percentile(self, share: float) -> int:
        """The least length that `share` of the rows do not exceed."""
        wanted = share * self.rows
        totals = list(accumulate(self.counts))
        return next((value for value, total in zip(self.values, totals, strict=True) if total >= wanted), self.longest)

    @property
    def recommended(self) -> int:
        """The 95th percentile, rounded up to a multiple of 64: 19 rows of 20 stay whole."""
        return max(1, -(-self.percentile(0.95) // MULTIPLE)) * MULTIPLE

    def cut_at(self, maximum: int) -> Cut:
        """What is lost at a maximum of so many tokens."""
        place = bisect_right(self.values, maximum)
        tokens = sum(value * count for value, count in zip(self.values, self.counts, strict=True))
        beyond = sum((value - maximum) * count for value, count in zip(self.values[place:], self.counts[place:], strict=True))
        lost = self.untrained + sum(count for value, count in self.first if value > maximum)
        rows = self.rows or 1
        x = WIDTH * min(1.0, maximum / (self._step * BARS))
        return Cut(maximum, sum(self.counts[place:]) / rows, beyond / (tokens or 1), lost / rows, x)

    @property
    def _step(self) -> int:
        """Tokens that one bar is wide: a round number."""
        least = max(1, -(-self.longest // BARS))
        scale = 10 ** (len(str(least)) - 1)
        return next(step for factor in (1, 2, 4, 5, 8, 10) if (step := int(factor * scale)) >= least)

    def bars(self, maximum: int) -> list[Bar]:
        """The histogram, up to the longest row."""
        step = self._step
        totals = [0] * BARS
        for value, count in zip(self.values, self.counts, strict=True):
            totals[min(BARS - 1, max(0, value - 1) // step)] += count
        highest, width = max(totals) or 1, WIDTH / BARS
        bars = []
        for number, rows in enumerate(totals[: -(-self.longest // step) or 1]):
            height = max(HEIGHT * rows / highest, 2.0) if rows else 0.0
            low, high = number * step + 1, (number + 1) * step
            place = round(number * width, 1), round(HEIGHT - height, 1), round(width - 2, 1), round(height, 1)
            bars.append(Bar(low, high, rows, rows / (self.rows or 1), *place, cut=low > maximum))
        return bars

    def ticks(self) -> list[tuple[float, int]]:
        """(x, tokens) of some marks below the bars."""
        return [(round(WIDTH * number / 4, 1), self._step * BARS * number // 4) for number in range(5)]


def learns_nothing(result: Mapping[str, Any], maximum: int) -> bool:
    """Whether no row that was looked at keeps a token to learn from at a maximum; only known where all rows were looked at."""
    if result["looked_at"] < result["rows"]:
        return False
    return not any(int(value) <= maximum for value, _ in result["first"])
