"""The curves of a run for a chart: read from the archive whole, smoothed whole, then cut into buckets that keep every spike.

Smoothing comes before bucketing, so that a run looks the same at every zoom; each bucket gives minimum, maximum and mean of all its
steps, so that no outlier is lost. The moving average is debiased: `l = a*l + (1-a)*y`, `w = a*w + (1-a)`, shown is `l/w`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import numpy as np
from django.db import connection
from django.db.models import F, Field, FloatField, Func, Q, TextField, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast
from numpy.typing import NDArray

from webapp.runs.models import Record, Run
from webapp.runs.stream import BEGINNING, Cursor

Axis = Literal["step", "epoch", "tokens", "seconds"]
Floats = NDArray[np.float64]

KEYS = ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "memory")
# `memory` stands for those of these that the run's device reports.
MEMORY_KEYS = ("resident_bytes", "allocated_bytes", "reserved_bytes", "device_used_bytes")
_AXES: dict[Axis, str] = {"step": "step", "epoch": "epoch", "tokens": "tokens", "seconds": "elapsed_seconds"}
_NONFINITE_LISTED = 1000
_BLOCK = 256
# The tables read last, by run and columns: 8 bytes a number, so 7 MB for 100 000 steps.
_TABLES_KEPT = 16
_KEPT: dict[tuple[UUID, tuple[tuple[str, ...], ...]], tuple[Cursor, Floats]] = {}


@dataclass(frozen=True)
class Columns:
    """The steps that count, in order: one array a column, NaN where a value is absent."""

    step: Floats
    x: Floats
    nonfinite: NDArray[np.bool_]
    values: dict[str, Floats]


def series(
    run: Run,
    keys: Sequence[str] = KEYS,
    x: Axis = "step",
    *,
    start: float | None = None,
    end: float | None = None,
    buckets: int = 1200,
    smoothing: float = 0.9,
) -> dict[str, Any]:
    """The curves as a JSON object.

    `{"cursor": "1-57", "axis": "step", "points": 57, "smoothing": 0.9, "x": [...], "series": {key: {"mean", "min", "max", "ema"}},
    "ema": {key: {"l", "w"}}, "evals": [{"step", "x", ...data of the eval event}], "nonfinite": [steps], "nonfinite_count": 0}`.

    All lists of `series` are as long as `x` (the first x of each bucket); a bucket without a finite value is null; `min` and `max` are
    absent where no bucket holds more than one step. `start` and `end` bound x, inclusive. `ema` holds the state of each average after
    the last step, so that a client continues it. A socket opened `after` the cursor brings exactly what is not in here.
    Raises `ValueError` for an unknown key or axis.
    """
    if x not in _AXES or not set(keys) <= set(KEYS) or not 0 <= smoothing < 1 or buckets < 1:
        raise ValueError(f"no such series: {', '.join(keys)} over {x}")
    cursor = _last(run)
    starts = _starts(run, cursor)
    names = _columns_of(run, keys)
    columns = _steps(run, cursor, starts, names, x)
    window = _window(columns.x, start, end)
    edges = _edges(int(window.stop - window.start), buckets)
    body: dict[str, Any] = {
        "cursor": str(cursor),
        "axis": x,
        "points": len(columns.step),
        "smoothing": smoothing,
        "x": _json(columns.x[window][edges]),
        "series": {},
        "ema": {},
        "evals": _evals(run, cursor, starts, columns),
        "nonfinite": [int(step) for step in columns.step[columns.nonfinite][:_NONFINITE_LISTED]],
        "nonfinite_count": int(columns.nonfinite.sum()),
    }
    for name, values in columns.values.items():
        average, state = ema(values, smoothing)
        body["series"][name] = bucketed(values[window], average[window], edges)
        body["ema"][name] = state
    return body


def ema(values: Floats, smoothing: float) -> tuple[Floats, dict[str, float]]:
    """The debiased moving average at each place, and its state `l`, `w` after the last.

    A value that is not finite is passed over: the average keeps its state. Before the first finite value it is NaN.
    """
    finite = np.isfinite(values)
    kept = values[finite]
    if not len(kept):
        return np.full(len(values), np.nan), {"l": 0.0, "w": 0.0}
    level = _filtered(kept, smoothing)
    weight = 1.0 - smoothing ** np.arange(1, len(kept) + 1, dtype=np.float64)
    # For each place, how many finite values have been seen; 0 points at the NaN put in front.
    seen = np.cumsum(finite)
    average = np.concatenate(([np.nan], level / weight))[seen]
    return average, {"l": float(level[-1]), "w": float(weight[-1])}


def _filtered(values: Floats, smoothing: float) -> Floats:
    """`l[i] = a*l[i-1] + (1-a)*y[i]` from 0, block by block: within a block as one matrix product, the last value carried over."""
    count = len(values)
    padded = np.zeros(-(-count // _BLOCK) * _BLOCK)
    padded[:count] = values
    powers = smoothing ** np.arange(_BLOCK, dtype=np.float64)
    lag = np.subtract.outer(np.arange(_BLOCK), np.arange(_BLOCK))
    kernel = np.where(lag >= 0, powers[np.abs(lag)], 0.0) * (1.0 - smoothing)
    blocks: Floats = padded.reshape(-1, _BLOCK) @ kernel.T
    carry = 0.0
    for block in blocks:
        block += carry * smoothing * powers  # noqa: PLW2901
        carry = block[-1]
    return blocks.reshape(-1)[:count]


def bucketed(values: Floats, average: Floats, edges: NDArray[np.intp]) -> dict[str, list[float | None]]:
    """Mean, minimum and maximum of each bucket's finite values, and the average at its last step. `edges` are where the buckets begin."""
    if not len(edges):
        return {"mean": [], "ema": []}
    ends = np.append(edges[1:], len(values))
    smooth = _json(average[ends - 1])
    if len(edges) == len(values):
        return {"mean": _json(values), "ema": smooth}
    finite = np.isfinite(values)
    count = np.add.reduceat(finite.astype(np.int64), edges)
    total = np.add.reduceat(np.where(finite, values, 0.0), edges)
    mean = np.divide(total, count, out=np.full(len(edges), np.nan), where=count > 0)
    return {
        "mean": _json(mean),
        "min": _json(np.fmin.reduceat(values, edges)),
        "max": _json(np.fmax.reduceat(values, edges)),
        "ema": smooth,
    }


# -- reading -----------------------------------------------------------------------------------------------------------


def _last(run: Run) -> Cursor:
    """How far the archive is. Taken first, and nothing after it is read, so that the answer is one moment."""
    newest = Record.objects.filter(run=run).order_by("-attempt", "-seq").values_list("attempt", "seq").first()
    return Cursor(*newest) if newest else BEGINNING


def _until(run: Run, cursor: Cursor, kind: str) -> Any:
    upto = Q(attempt__lt=cursor.attempt) | Q(attempt=cursor.attempt, seq__lte=cursor.seq)
    return Record.objects.filter(upto, run=run, kind=kind).order_by("attempt", "seq")


def _starts(run: Run, cursor: Cursor) -> dict[int, int]:
    """For each attempt the step it resumed after: what earlier attempts did beyond that has been undone."""
    plans = _until(run, cursor, "plan").values_list("attempt", "data")
    return {attempt: int(data.get("start_step") or 0) for attempt, data in plans}


def _columns_of(run: Run, keys: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The place of each wanted column in a step's data."""
    names: dict[str, tuple[str, ...]] = {key: (key,) for key in keys if key != "memory"}
    if "memory" in keys:
        sample = Record.objects.filter(run=run, kind="step").order_by("-attempt", "-seq").values_list("data", flat=True).first() or {}
        names |= {name: ("memory", name) for name in MEMORY_KEYS if name in (sample.get("memory") or {})}
    return names


def _steps(run: Run, cursor: Cursor, starts: dict[int, int], names: dict[str, tuple[str, ...]], x: Axis) -> Columns:
    table = _table(run, cursor, ((_AXES[x],), ("nonfinite",), *names.values()))
    table = table[_standing(table[:, 0], table[:, 1], starts)]
    values = {name: table[:, 4 + index] for index, name in enumerate(names)}
    return Columns(step=table[:, 1], x=table[:, 2], nonfinite=table[:, 3] == 1, values=values)


def _table(run: Run, cursor: Cursor, paths: tuple[tuple[str, ...], ...]) -> Floats:
    """Attempt, step and the numbers of every step event up to the cursor, one row each. What has been read once is kept, for an archive
    only grows: a chart that is zoomed or smoothed anew reads what is new.
    """
    key = (run.pk, paths)
    known_to, known = _KEPT.pop(key, (BEGINNING, np.empty((0, 2 + len(paths)))))
    later = Q(attempt__gt=known_to.attempt) | Q(attempt=known_to.attempt, seq__gt=known_to.seq)
    rows = _until(run, cursor, "step").filter(later).values_list("attempt", "step", *(_number(*path) for path in paths))
    table = np.concatenate((known, np.array(list(rows), dtype=np.float64).reshape(-1, 2 + len(paths))))
    _KEPT[key] = (cursor, table)
    while len(_KEPT) > _TABLES_KEPT:
        _KEPT.pop(next(iter(_KEPT)), None)
    return table


def _number(*path: str) -> Combinable:
    """A number of the data, read by the database: decoding each row in Python takes several times as long."""
    if connection.vendor == "sqlite":
        # The bare field spares a call of Python for each number.
        return Func(F("data"), Value("$." + ".".join(path)), function="JSON_EXTRACT", output_field=Field())
    text = Func(F("data"), *map(Value, path), function="jsonb_extract_path_text", output_field=TextField())
    if path == ("nonfinite",):
        text = Func(text, Value("true"), Value("1"), function="replace", output_field=TextField())
    return Cast(text, FloatField())


def _standing(attempts: Floats, steps: Floats, starts: dict[int, int]) -> NDArray[np.bool_]:
    """Which rows stand: not those of an attempt beyond the step after which a later attempt resumed."""
    standing = np.ones(len(attempts), dtype=bool)
    for attempt, start in starts.items():
        standing &= (attempts >= attempt) | (steps <= start)
    return standing


def _evals(run: Run, cursor: Cursor, starts: dict[int, int], columns: Columns) -> list[dict[str, Any]]:
    rows = list(_until(run, cursor, "eval").values_list("attempt", "step", "data"))
    attempts = np.array([row[0] for row in rows], dtype=np.float64)
    steps = np.array([row[1] or 0 for row in rows], dtype=np.float64)
    standing = _standing(attempts, steps, starts)
    # Where on the axis a step lies that is known by its number alone.
    places = np.interp(steps, columns.step, columns.x) if len(columns.step) else steps
    return [{**row[2], "x": _rounded(place)} for row, place, stands in zip(rows, places, standing, strict=True) if stands]


# -- cutting -----------------------------------------------------------------------------------------------------------


def _window(x: Floats, start: float | None, end: float | None) -> slice:
    """The places of x from `start` to `end`; x never falls."""
    first = 0 if start is None else int(np.searchsorted(x, start, side="left"))
    behind = len(x) if end is None else int(np.searchsorted(x, end, side="right"))
    return slice(first, max(first, behind))


def _edges(count: int, buckets: int) -> NDArray[np.intp]:
    """Where the buckets begin: all of one size, give or take a step."""
    if count <= buckets:
        return np.arange(count)
    return np.linspace(0, count, buckets, endpoint=False).astype(np.intp)


def _rounded(value: float) -> float | None:
    """Six significant digits: more than a screen shows, a third of the bytes."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _json(values: Floats) -> list[float | None]:
    return [_rounded(value) for value in values.tolist()]
