"""Intervals and spreads: what can be said of a share that was counted, and of a figure that was measured over several seeds. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, stdev

LEVEL = 0.95
# How far a share times its rows may be from a whole number and still be a count: shares travel as floats of 64 bits.
_WHOLE = 1e-6


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, in the unit of what it is about, at 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """`count` values: their mean, their standard deviation as of a sample (None of one value), and the interval of the mean by Student's t
    (None of one value).
    """

    count: int
    mean: float
    deviation: float | None
    interval: Interval | None


def wilson(share: float, rows: int, level: float = LEVEL) -> Interval:
    """The score interval of a share of `rows` independent rows (Wilson 1927), which stays within 0 and 1 and holds for few rows.

    Raises `ValueError` where there are no rows, or the share is none.
    """
    if rows < 1 or not 0 <= share <= 1:
        raise ValueError(f"no share: {share} of {rows} rows")
    z = NormalDist().inv_cdf((1 + level) / 2)
    scale = 1 + z * z / rows
    centre = (share + z * z / (2 * rows)) / scale
    reach = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)) / scale
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    return Interval(0.0 if share == 0 else centre - reach, 1.0 if share == 1 else centre + reach)


def counted(share: float, rows: int) -> bool:
    """Whether `share` can be a count of `rows`: it is a whole number of them."""
    hits = share * rows
    return rows > 0 and 0 <= share <= 1 and abs(hits - round(hits)) < _WHOLE * rows


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and interval of values. Raises `ValueError` where there are none."""
    if not values:
        raise ValueError("no values")
    mean = fmean(values)
    if len(values) == 1:
        return Spread(1, mean, None, None)
    deviation = stdev(values)
    reach = student(len(values) - 1) * deviation / math.sqrt(len(values))
    return Spread(len(values), mean, deviation, Interval(mean - reach, mean + reach))


@lru_cache
def student(freedom: int, level: float = LEVEL) -> float:
    """The t of so many degrees of freedom between whose negative and itself lies the share `level` of the distribution."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """The share of Student's distribution between -t and t (Abramowitz and Stegun, 26.7.3 and 26.7.4: a finite sum)."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    term = cosine if freedom % 2 else 1.0
    total = 0.0
    for power in range(3 if freedom % 2 else 2, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (power - 1) / power
    return 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total


def relative(value: float | None, base: float | None) -> float | None:
    """How much more `value` is than `base`, as a share of it: -0.76 is 76 per cent less. None where either is not known, or the base 0."""
    if value is None or not base:
        return None
    return value / base - 1
