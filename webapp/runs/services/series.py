"""The curves of a run for a chart: read from the archive whole, smoothed whole, then cut into buckets that keep every spike.

Smoothing comes before bucketing, so that a run looks the same at every zoom; each bucket gives minimum, maximum and mean of all its
steps, so that no outlier is lost. The moving average is debiased: `l = a*l + (1-a)*y`, `w = a*w + (1-a)`, shown is `l/w`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from webapp.runs.models import Record, Run
from webapp.runs.services.points import GAUGES, MEMORY_KEYS, PATHS, Floats, table, until
from webapp.runs.states import State
from webapp.runs.stream import BEGINNING, Cursor

Axis = Literal["step", "epoch", "tokens", "seconds"]

KEYS = ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "memory", "device")
# These stand for those of their parts that the run's device reports.
_PARTS: dict[str, tuple[str, ...]] = {"memory": MEMORY_KEYS, "device": GAUGES}
_AXES: dict[Axis, str] = {"step": "step", "epoch": "epoch", "tokens": "tokens", "seconds": "elapsed_seconds"}
_NONFINITE_LISTED = 1000
_BLOCK = 256
# The logarithm of half of what separates 1.0 from the float below it.
_SMALLEST = math.log(2.0**-54)
_CHECKPOINTS_LISTED = 60
_EVAL_KEYS = ("step", "epoch", "split", "model", "loss")
_MARK_ORDER = ("checkpoint", "pause", "resume")


@dataclass(frozen=True)
class Columns:
    """The steps that count, in order: one array a column, NaN where a value is absent."""

    step: Floats
    x: Floats
    nonfinite: NDArray[np.bool_]
    values: dict[str, Floats]

    def places(self, steps: Floats) -> Floats:
        """Where on the axis steps lie that are known by their number alone."""
        return np.interp(steps, self.step, self.x) if len(self.step) else steps


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

    `{"cursor": "1-57", "axis": "step", "points": 57, "shown": 57, "smoothing": 0.9, "x": [...], "series": {key: {"mean", "min", "max",
    "ema"}}, "ema": {key: {"l", "w"}}, "evals": [{"step", "x", "epoch", "split", "model", "loss"}], "marks": [{"kind", "step", "x"}],
    "nonfinite": [steps], "nonfinite_x": [their places], "nonfinite_count": 0}`; `shown` is how many steps lie within the bounds.

    All lists of `series` are as long as `x` (the first x of each bucket); a bucket without a finite value is null; `min` and `max` are
    absent where no bucket holds more than one step. `start` and `end` bound x, inclusive. `ema` holds the state of each average after
    the last step, so that a client continues it. A socket opened `after` the cursor brings exactly what is not in here.
    Raises `ValueError` for an unknown key or axis.
    """
    if x not in _AXES or not set(keys) <= set(KEYS) or not 0 <= smoothing < 1 or buckets < 1:
        raise ValueError(f"no such series: {', '.join(keys)} over {x}")
    cursor = _last(run)
    starts = _starts(run, cursor)
    columns = _steps(run, cursor, starts, keys, x)
    window = _window(columns.x, start, end)
    edges = _edges(int(window.stop - window.start), buckets)
    body: dict[str, Any] = {
        "cursor": str(cursor),
        "axis": x,
        "points": len(columns.step),
        "shown": int(window.stop - window.start),
        "smoothing": smoothing,
        "x": _json(columns.x[window][edges]),
        "series": {},
        "ema": {},
        "evals": _evals(run, cursor, starts, columns),
        "marks": _marks(run, cursor, starts, columns),
        "nonfinite": [int(step) for step in columns.step[columns.nonfinite][:_NONFINITE_LISTED]],
        "nonfinite_x": _json(columns.x[columns.nonfinite][:_NONFINITE_LISTED]),
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
    # Beyond so many values what is missing of a weight of 1 is less than a float tells; powers down there cost more than all else.
    telling = min(len(kept), math.ceil(_SMALLEST / math.log(smoothing)) if smoothing else 1)
    weight = np.ones(len(kept))
    weight[:telling] -= smoothing ** np.arange(1, telling + 1, dtype=np.float64)
    # For each place, how many finite values have been seen; 0 points at the NaN put in front.
    seen = np.cumsum(finite)
    average = np.concatenate(([np.nan], level / weight))[seen]
    return average, {"l": float(level[-1]), "w": float(weight[-1])}


def _filtered(values: Floats, smoothing: float) -> Floats:
    """`l[i] = a*l[i-1] + (1-a)*y[i]` from 0, block by block: within a block as one matrix product, the last value carried over."""
    count = len(values)
    padded = np.zeros(-(-count // _BLOCK) * _BLOCK)
    padded[:count] = values
    powers, kernel = _kernel(smoothing)
    blocks: Floats = padded.reshape(-1, _BLOCK) @ kernel.T
    carry = 0.0
    for block in blocks:
        block += carry * smoothing * powers  # noqa: PLW2901
        carry = block[-1]
    return blocks.reshape(-1)[:count]


@lru_cache(8)
def _kernel(smoothing: float) -> tuple[Floats, Floats]:
    """The powers of `smoothing` from 0 on, and float64 [block, block]: what each value of a block adds to each place behind it."""
    powers = smoothing ** np.arange(_BLOCK, dtype=np.float64)
    lag = np.subtract.outer(np.arange(_BLOCK), np.arange(_BLOCK))
    return powers, np.where(lag >= 0, powers[np.abs(lag)], 0.0) * (1.0 - smoothing)


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


def _starts(run: Run, cursor: Cursor) -> dict[int, int]:
    """For each attempt the step it resumed after: what earlier attempts did beyond that has been undone."""
    plans = until(run, cursor, "plan").values_list("attempt", "data")
    return {attempt: int(data.get("start_step") or 0) for attempt, data in plans}


def _steps(run: Run, cursor: Cursor, starts: dict[int, int], keys: Sequence[str], x: Axis) -> Columns:
    found = table(run, cursor)
    found = found[_standing(found[:, 0], found[:, 1], starts)]
    column = {name: found[:, 2 + index] for index, name in enumerate(PATHS)}
    names = [name for key in keys for name in _PARTS.get(key, (key,))]
    # A part is there where the run's device has told of it.
    values = {name: column[name] for name in names if name in keys or np.isfinite(column[name]).any()}
    return Columns(step=found[:, 1], x=column[_AXES[x]], nonfinite=column["nonfinite"] == 1, values=values)


def _standing(attempts: Floats, steps: Floats, starts: dict[int, int]) -> NDArray[np.bool_]:
    """Which rows stand: not those of an attempt beyond the step after which a later attempt resumed."""
    standing = np.ones(len(attempts), dtype=bool)
    for attempt, start in starts.items():
        standing &= (attempts >= attempt) | (steps <= start)
    return standing


def _evals(run: Run, cursor: Cursor, starts: dict[int, int], columns: Columns) -> list[dict[str, Any]]:
    """What a chart draws of the `eval` events."""
    rows = list(until(run, cursor, "eval").values_list("attempt", "step", "data"))
    attempts = np.array([row[0] for row in rows], dtype=np.float64)
    steps = np.array([row[1] or 0 for row in rows], dtype=np.float64)
    standing = _standing(attempts, steps, starts)
    places = columns.places(steps)
    kept = ({key: row[2][key] for key in _EVAL_KEYS if key in row[2]} for row in rows)
    return [{**data, "x": _rounded(place)} for data, place, stands in zip(kept, places, standing, strict=True) if stands]


def standing_steps(run: Run) -> tuple[list[str], Floats]:
    """(names, float64 [steps, names]) of every step that counts, in order; columns that this run never had are left out."""
    cursor = _last(run)
    found = table(run, cursor)
    found = found[_standing(found[:, 0], found[:, 1], _starts(run, cursor))][:, 2:]
    told = [index for index in range(len(PATHS)) if np.isfinite(found[:, index]).any()]
    return [list(PATHS)[index] for index in told], found[:, told]


def _marks(run: Run, cursor: Cursor, starts: dict[int, int], columns: Columns) -> list[dict[str, Any]]:
    """What happened between steps: `kind` (`checkpoint`, `pause`, `resume`), `step` and `x`, in order of the steps.

    Of many checkpoints those are given that lie evenly, and always the last.
    """
    rows = np.array(list(until(run, cursor, "checkpoint").values_list("attempt", "step")), dtype=np.float64).reshape(-1, 2)
    saved = rows[_standing(rows[:, 0], rows[:, 1], starts)][:, 1]
    saved = saved[np.unique(np.linspace(0, len(saved) - 1, min(len(saved), _CHECKPOINTS_LISTED)).astype(np.intp))]
    found = [("checkpoint", step) for step in saved.tolist()]
    paused = set(run.history.filter(to_state=State.PAUSED).values_list("attempt", flat=True))
    for attempt, start in starts.items():
        if start > 0:
            found += [("pause", float(start))] * (attempt - 1 in paused) + [("resume", float(start))]
    if starts and max(starts) in paused and len(columns.step):
        found.append(("pause", float(columns.step[-1])))
    found.sort(key=lambda mark: (mark[1], _MARK_ORDER.index(mark[0])))
    places = columns.places(np.array([step for _, step in found], dtype=np.float64))
    return [{"kind": kind, "step": int(step), "x": _rounded(place)} for (kind, step), place in zip(found, places, strict=True)]


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
