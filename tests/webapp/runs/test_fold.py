"""Folding events to the summary, and the summary that a recorded attempt leads to."""

from __future__ import annotations

import copy
import math
from functools import reduce
from typing import Any

import pytest

from jobs.events import Event
from webapp.runs.fold import BUCKETS, Summary, fold


def event(kind: str, **data: Any) -> Event:
    return Event(seq=1, t=0.0, kind=kind, data=data)


def steps(first: int, last: int) -> list[Event]:
    return [event("step", step=step, loss=float(step), memory={"resident_bytes": 100 + step % 7}) for step in range(first, last + 1)]


def folded(*events: Event, start: Summary | None = None) -> Summary:
    return reduce(fold, events, start or {})


@pytest.mark.parametrize("count", [1, 39, 40, 41, 79, 80, 81, 500, 4097])
def test_spark_is_the_means_of_equal_buckets(count: int) -> None:
    summary = folded(event("plan", total_steps=count, start_step=0), *steps(1, count))
    width = summary["buckets"]["width"]
    expected = [
        sum(range(start + 1, min(start + width, count) + 1)) / (min(start + width, count) - start) for start in range(0, count, width)
    ]
    assert summary["spark"] == pytest.approx(expected, abs=1e-5)
    assert len(summary["spark"]) <= BUCKETS
    assert width == 2 ** max(0, math.ceil(math.log2(count / BUCKETS)))
    assert summary["points"] == count
    assert summary["peak_memory_bytes"] == 100 + min(count, 6)


def test_resumed_attempt_replaces_what_it_trains_again() -> None:
    summary = folded(event("plan", total_steps=100, start_step=0), *steps(1, 100))
    again = folded(event("plan", total_steps=100, start_step=60), *steps(61, 100), start=summary)
    assert again["spark"] == summary["spark"]
    assert again["points"] == 140


def test_step_that_was_not_finite_leaves_a_hole() -> None:
    summary = folded(*steps(1, 2), event("step", step=3, loss=None, nonfinite=True), *steps(4, 4))
    assert summary["spark"] == [1.0, 2.0, 4.0]
    assert summary["points"] == 4


def test_evaluations_of_the_held_out_rows_are_kept_by_model() -> None:
    plan = event("plan", total_steps=10, start_step=0, test_rows=5)
    base = event("eval", split="test", model="base", loss=3.0, step=0)
    middle = event("eval", split="validation", model="tuned", loss=2.0, step=5)
    later = event("eval", split="validation", model="tuned", loss=2.5, step=10)
    tuned = event("eval", split="test", model="tuned", loss=1.0, label_accuracy=0.9, step=10)
    evals = folded(plan, base, middle, later, tuned)["evals"]
    assert evals == {"test": {"base": base.data, "tuned": tuned.data}, "validation": later.data, "best": {"step": 5, "loss": 2.0}}


def test_without_test_rows_the_validation_rows_are_the_held_out_ones() -> None:
    plan = event("plan", total_steps=10, start_step=0, test_rows=0)
    base = event("eval", split="validation", model="base", loss=3.0, step=0)
    tuned = event("eval", split="validation", model="tuned", loss=1.0, step=10)
    assert folded(plan, base, tuned)["evals"]["test"] == {"base": base.data, "tuned": tuned.data}


def test_warnings_are_kept_once_and_others_pass() -> None:
    warning = event("warning", code="cut", message="3 rows were cut", remedy="Raise the length.")
    summary = folded(warning, warning, event("log", level="info", message="hello"), event("phase", name="loading", done=1, total=2))
    assert summary == {"warnings": [warning.data], "phase": {"name": "loading", "done": 1, "total": 2}}


def test_fold_is_pure() -> None:
    before = folded(event("plan", total_steps=3, start_step=0), *steps(1, 3))
    kept = copy.deepcopy(before)
    folded(*steps(4, 90), event("plan", total_steps=3, start_step=2), start=before)
    assert before == kept
