"""How large the batches of a run become, from the lengths of its rows. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, fmean, pstdev

from jobs.data.tokens import LENGTH_CAP, LENGTH_MULTIPLE
from jobs.spec import TrainingSpec

# Where nothing is known of the rows: the length that a maximum allows is then seldom reached, and half of a row is answer.
UNKNOWN_SHARE_OF_MAXIMUM = 0.5
UNKNOWN_MAXIMUM = 512
UNKNOWN_LABEL_SHARE = 0.5
UNKNOWN_ROWS = 1000
# Rows that stand for a distribution which is known by its percentiles.
_SAMPLES = 400


@dataclass(frozen=True)
class RowLengths:
    """Rows in tokens: `lengths` of all of them or of a sample, `rows` how many there are, `label_share` of their tokens is trained on,
    `shared` tokens at the beginning are the same in all rows. `known` tells rows that were looked at from a guess.
    """

    lengths: tuple[int, ...]
    rows: int
    label_share: float
    shared: int = 0
    known: bool = True

    @classmethod
    def of(
        cls, lengths: Sequence[int], *, rows: int | None = None, label_share: float = UNKNOWN_LABEL_SHARE, shared: int = 0
    ) -> RowLengths:
        """From the lengths of the rows, or of a sample of `rows` rows."""
        return cls(tuple(lengths), rows or len(lengths), label_share, shared)

    @classmethod
    def from_percentiles(
        cls, percentiles: Mapping[float, float], rows: int, label_share: float = UNKNOWN_LABEL_SHARE, shared: int = 0
    ) -> RowLengths:
        """From lengths by percentile, such as {0: 12, 50: 80, 90: 210, 100: 512}, with straight lines between them."""
        known = sorted(percentiles.items())
        places = [100 * (sample + 0.5) / _SAMPLES for sample in range(_SAMPLES)]
        return cls(tuple(round(_between(known, place)) for place in places), rows, label_share, shared)

    @classmethod
    def unknown(cls, training: TrainingSpec, context: int | None = None) -> RowLengths:
        """A guess where nothing is known of the rows: all of them half as long as the maximum length."""
        most = min(training.max_length or UNKNOWN_MAXIMUM, context or math.inf)
        length = max(1, round(most * UNKNOWN_SHARE_OF_MAXIMUM))
        return cls((length,), UNKNOWN_ROWS, UNKNOWN_LABEL_SHARE, known=False)

    def cut(self, max_length: int | None) -> RowLengths:
        """The rows as a maximum length leaves them."""
        if max_length is None:
            return self
        return RowLengths(tuple(min(length, max_length) for length in self.lengths), self.rows, self.label_share, self.shared, self.known)

    def natural_length(self) -> int:
        """The maximum length of a run that names none, as `jobs.data.tokens` finds it."""
        percentile = sorted(self.lengths)[math.ceil(0.99 * len(self.lengths)) - 1]
        return min(LENGTH_CAP, -(-percentile // LENGTH_MULTIPLE) * LENGTH_MULTIPLE)

    @property
    def mean(self) -> float:
        """Tokens of a row."""
        return fmean(self.lengths)


@dataclass(frozen=True)
class BatchShape:
    """A micro-batch. `tokens` are the rows' own; `computed` are those that pass through the model: fewer where a prefix is shared, more
    where rows are padded. `squares` is the sum over the rows of own tokens times tokens seen; `longest` is in tokens.
    """

    rows: int
    tokens: float
    computed: float
    labels: float
    squares: float
    longest: float


def largest_batch(lengths: RowLengths, training: TrainingSpec, micro_batches: int, *, packed: bool, shares_prefix: bool) -> BatchShape:
    """The largest micro-batch that is to be expected among `micro_batches`.

    The tokens of a batch are close to normal about their mean; the largest of n normal numbers is expected at the quantile
    (n - 0.375) / (n + 0.25) (Blom 1958, Statistical Estimates and Transformed Beta-Variables).
    """
    rows = min(training.micro_batch, lengths.rows)
    deviations = NormalDist().inv_cdf((micro_batches - 0.375) / (micro_batches + 0.25)) if micro_batches > 1 else 0.0
    tokens = rows * lengths.mean + deviations * pstdev(lengths.lengths) * math.sqrt(rows)
    ordered = sorted(lengths.lengths)
    longest = float(ordered[min(len(ordered) - 1, math.floor(len(ordered) * (1 - 1 / (rows * micro_batches + 1))))])
    tokens = min(tokens, rows * ordered[-1])
    if training.micro_batch_tokens:
        tokens = max(longest, min(tokens * training.gradient_accumulation, training.micro_batch_tokens))
        rows = max(1, round(tokens / lengths.mean))
    return _shape(lengths, rows, tokens, longest, packed=packed, shares_prefix=shares_prefix)


def mean_batch(lengths: RowLengths, training: TrainingSpec, *, packed: bool, shares_prefix: bool) -> BatchShape:
    """The micro-batch that a run sees by and large."""
    rows = min(training.micro_batch, lengths.rows)
    if training.micro_batch_tokens:
        rows = max(1, round(training.micro_batch_tokens / lengths.mean))
    ordered = sorted(lengths.lengths)
    longest = float(ordered[math.floor((len(ordered) - 1) * rows / (rows + 1) + 0.5)])
    return _shape(lengths, rows, rows * lengths.mean, longest, packed=packed, shares_prefix=shares_prefix)


def _shape(lengths: RowLengths, rows: int, tokens: float, longest: float, *, packed: bool, shares_prefix: bool) -> BatchShape:
    shared = lengths.shared if packed and shares_prefix and rows > 1 else 0
    computed = tokens - (rows - 1) * shared if packed else rows * longest
    scale = tokens / (rows * lengths.mean)
    square = fmean(length * length for length in lengths.lengths) * rows * scale
    seen = square - (rows - 1) * shared * tokens / rows if packed else rows * longest * longest
    return BatchShape(rows, tokens, computed, tokens * lengths.label_share, seen, longest)


def _between(points: Sequence[tuple[float, float]], place: float) -> float:
    for (left, low), (right, high) in pairwise(points):
        if left <= place <= right:
            return low + (high - low) * (place - left) / (right - left)
    return points[0][1] if place < points[0][0] else points[-1][1]
