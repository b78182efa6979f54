"""A chart of one figure over another, as numbers for an SVG: where the axes have ticks and where points and their names stand. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 16, 52
# Room of a name, for keeping names off each other: points of the coordinates, a letter's width as set in the style sheet.
_LETTER, _LINE = 7.2, 16
_TICKS = 5


@dataclass(frozen=True)
class Point:
    """What is to be shown: place from 1, name, both figures, and how far the second may be off (`low` to `high`, None: not known)."""

    place: int
    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in points, and its words."""

    at: float
    words: str


@dataclass(frozen=True)
class Mark:
    """A point on the chart: its centre, the ends of its bar (None: no bar), and where its name stands (`anchor` as SVG has it)."""

    point: Point
    x: float
    y: float
    bar: tuple[float, float] | None
    text_x: float
    text_y: float
    anchor: str


@dataclass(frozen=True)
class Chart:
    """Everything that the drawing needs, in points from the upper left corner."""

    marks: Sequence[Mark]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def ticks(low: float, high: float, count: int = _TICKS) -> list[float]:
    """About `count` round places (1, 2 or 5 times a power of ten apart) that enclose `low` to `high`; of one value, some around it."""
    if high <= low:
        room = abs(low) / 10 or 1.0
        low, high = low - room, high + room
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def scatter(
    points: Sequence[Point],
    x_words: Callable[[float], str],
    y_words: Callable[[float], str],
    *,
    x_least: float | None = None,
    y_least: float | None = None,
    y_most: float | None = None,
) -> Chart:
    """The chart of at least one point. `x_least`, `y_least` and `y_most` are what the figures cannot pass (a share: 0 and 1)."""
    points = [replace(point, low=_cut(point.low, y_least, y_most), high=_cut(point.high, y_least, y_most)) for point in points]
    across = _within(ticks(*_reach([point.x for point in points])), x_least, None)
    ends = [end for point in points for end in (point.low, point.high, point.y) if end is not None]
    up = _within(ticks(*_reach(ends)), y_least, y_most)

    def to_x(value: float) -> float:
        return round(LEFT + (value - across[0]) / (across[-1] - across[0]) * (WIDTH - LEFT - RIGHT), 1)

    def to_y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - up[0]) / (up[-1] - up[0]) * (HEIGHT - TOP - BOTTOM), 1)

    return Chart(
        marks=_named([(point, to_x(point.x), to_y(point.y), _bar(point, to_y)) for point in points]),
        x_ticks=[Tick(to_x(value), x_words(value)) for value in across],
        y_ticks=[Tick(to_y(value), y_words(value)) for value in up],
    )


def _cut(value: float | None, least: float | None, most: float | None) -> float | None:
    """The end of a bar within what the figure can be."""
    if value is None:
        return None
    return min(max(value, value if least is None else least), value if most is None else most)


def _reach(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _within(places: list[float], least: float | None, most: float | None) -> list[float]:
    """The ticks without those that no figure can reach; two stay at least, so that there is a scale."""
    kept = [place for place in places if (least is None or place >= least) and (most is None or place <= most)]
    return kept if len(kept) > 1 else places


def _bar(point: Point, to_y: Callable[[float], float]) -> tuple[float, float] | None:
    return None if point.low is None or point.high is None else (to_y(point.low), to_y(point.high))


_Placed = tuple[Point, float, float, tuple[float, float] | None]


def _named(placed: Sequence[_Placed]) -> list[Mark]:
    """Each name to the right of its point, or to the left, above or below it: the first place that is free of others and on the chart."""
    taken: list[tuple[float, float, float, float]] = [(x - 7, y - 7, x + 7, y + 7) for _point, x, y, _bar in placed]
    marks = []
    for point, x, y, bar in placed:
        width = _LETTER * (len(point.label) + 2)
        tries = [(x + 11, y + 4, "start"), (x - 11, y + 4, "end"), (x + 11, y - 12, "start"), (x + 11, y + 20, "start"),
                 (x - 11, y - 12, "end"), (x - 11, y + 20, "end")]  # fmt: skip
        boxes = [_box(*each, width) for each in tries]
        free = [index for index, box in enumerate(boxes) if _on_chart(box) and not any(_meet(box, other) for other in taken)]
        best = next(iter(free), next((index for index, box in enumerate(boxes) if _on_chart(box)), 0))
        taken.append(boxes[best])
        marks.append(Mark(point, x, y, bar, round(tries[best][0], 1), round(tries[best][1], 1), tries[best][2]))
    return marks


def _box(x: float, y: float, anchor: str, width: float) -> tuple[float, float, float, float]:
    left = x if anchor == "start" else x - width
    return left, y - _LINE + 4, left + width, y + 4


def _on_chart(box: tuple[float, float, float, float]) -> bool:
    return box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM + 4


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
