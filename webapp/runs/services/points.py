"""The steps of a run as columns of numbers: read from the archive once, kept in memory, and of a long run in a file beside it.

A row of the archive is JSON; to have a hundred thousand of them parsed takes a second and more. As float64 columns they are read in
some milliseconds, so the ingest keeps such a copy of a run that grows long (`keep`), and every reader adds what is newer. The copy may be
deleted at any time.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from pathlib import Path
from uuid import UUID

import numpy as np
from django.db import connection
from django.db.models import F, Field, FloatField, Func, Q, QuerySet, TextField, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast
from numpy.typing import NDArray

from webapp.runs.models import Record, Run
from webapp.runs.stream import BEGINNING, Cursor

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]

# What of a step is a column, as a path in the event's data, after attempt and step: axes first, then what is drawn.
MEMORY_KEYS = ("resident_bytes", "allocated_bytes", "reserved_bytes", "device_used_bytes")
GAUGES = ("utilisation", "celsius")
PATHS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("step", "epoch", "tokens", "elapsed_seconds", "nonfinite")},
    **{name: (name,) for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second")},
    **{name: ("memory", name) for name in MEMORY_KEYS},
    **{name: ("device", name) for name in GAUGES},
}
_WIDTH = 2 + len(PATHS)
# A copy is written anew after so many further steps; a run with fewer needs none.
KEEP_STEPS = 5000
# The tables read last: 8 bytes a number, so 12 MB for 100 000 steps.
_TABLES = 8
_KEPT: OrderedDict[UUID, tuple[Cursor, Floats]] = OrderedDict()
_LOCK = threading.Lock()


def table(run: Run, cursor: Cursor) -> Floats:
    """float64 [steps, 2 + len(PATHS)]: attempt, step and the columns of `PATHS` of every step event up to the cursor, NaN where absent.

    What has been read once is kept, for an archive only grows.
    """
    # One reader at a time: the charts of a page ask together, and the first one's answer is all of theirs.
    with _LOCK:
        known_to, known = _KEPT.pop(run.pk) if run.pk in _KEPT else _copy(run)
        if known_to < cursor:
            known = np.concatenate((known, _newer(run, known_to, cursor)))
            known_to = cursor
        _KEPT[run.pk] = (known_to, known)
        while len(_KEPT) > _TABLES:
            _KEPT.popitem(last=False)
    return _upto(known, run, cursor, known_to)


def keep(run: Run) -> None:
    """Writes the copy of a run that has grown long; does nothing where there is little to add. A full disk is only a slower page."""
    newest = Record.objects.filter(run=run, kind="step").order_by("-attempt", "-seq").values_list("attempt", "seq").first()
    if newest is None:
        return
    known_to, known = _copy(run)
    added = _newer(run, known_to, Cursor(*newest))
    if len(added) < KEEP_STEPS:
        return
    head = np.zeros((1, _WIDTH))
    head[0, :2] = newest
    path = _file(run)
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, np.concatenate((head, known, added)))
        os.replace(partial, path)
    except OSError as failure:
        log.warning("run %s: the copy of its curves was not written (%s)", run.pk, failure)


def forget() -> None:
    """Lets go of all tables in memory: for tests, and for measuring the first time."""
    with _LOCK:
        _KEPT.clear()


def _file(run: Run) -> Path:
    """The number of columns is in the name, so that a copy of other columns is not found."""
    return run.folder / f"curves-{_WIDTH}.npy"


def _copy(run: Run) -> tuple[Cursor, Floats]:
    """The copy and how far it reaches: its first row holds that, as attempt and number."""
    try:
        found: Floats = np.load(_file(run), allow_pickle=False)
    except (OSError, ValueError):
        return BEGINNING, np.empty((0, _WIDTH))
    return Cursor(int(found[0, 0]), int(found[0, 1])), found[1:]


def _newer(run: Run, after: Cursor, upto: Cursor) -> Floats:
    later = Q(attempt__gt=after.attempt) | Q(attempt=after.attempt, seq__gt=after.seq)
    rows = until(run, upto, "step").filter(later).values_list("attempt", "step", *(_number(*path) for path in PATHS.values()))
    return np.array(list(rows.iterator(chunk_size=5000)), dtype=np.float64).reshape(-1, _WIDTH)


def _upto(known: Floats, run: Run, cursor: Cursor, known_to: Cursor) -> Floats:
    """Another reader may have read further since this one asked how far the archive is."""
    if known_to == cursor:
        return known
    return known[: until(run, cursor, "step").count()]


def until(run: Run, cursor: Cursor, kind: str) -> QuerySet[Record]:
    """The records of a kind up to the cursor, in order."""
    upto = Q(attempt__lt=cursor.attempt) | Q(attempt=cursor.attempt, seq__lte=cursor.seq)
    return Record.objects.filter(upto, run=run, kind=kind).order_by("attempt", "seq")


def _number(*path: str) -> Combinable:
    """A number of the data, read by the database: decoding each row in Python takes several times as long."""
    if connection.vendor == "sqlite":
        # The bare field spares a call of Python for each number.
        return Func(F("data"), Value("$." + ".".join(path)), function="JSON_EXTRACT", output_field=Field())
    text = Func(F("data"), *map(Value, path), function="jsonb_extract_path_text", output_field=TextField())
    if path == ("nonfinite",):
        text = Func(text, Value("true"), Value("1"), function="replace", output_field=TextField())
    return Cast(text, FloatField())
