"""Curves: whole before they are cut, spikes kept, undone steps gone."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest

from tests.webapp.runs.rows import Bench
from webapp.runs.models import Record, Run
from webapp.runs.services.series import KEYS, bucketed, ema, series


def add(run: Run, attempt: int, events: list[tuple[str, dict[str, Any]]], first: int = 1) -> None:
    Record.objects.bulk_create(
        [
            Record(run=run, attempt=attempt, seq=seq, kind=kind, step=data.get("step"), at=float(seq), data=data)
            for seq, (kind, data) in enumerate(events, first)
        ],
        batch_size=2000,
    )


def step(number: int, loss: float | None, **more: Any) -> tuple[str, dict[str, Any]]:
    body = {
        "step": number,
        "epoch": number / 100,
        "loss": loss,
        "learning_rate": 2e-4,
        "gradient_norm": 1.5,
        "tokens": number * 1000,
        "tokens_per_second": 800.0,
        "elapsed_seconds": number * 1.25,
        "memory": {"resident_bytes": 10**9 + number},
    }
    return "step", {**body, **more}


def test_a_short_run_comes_whole(bench: Bench) -> None:
    run = bench.launch()
    add(run, 1, [("phase", {"name": "training"}), *(step(number, 4.0 / number) for number in range(1, 6)), ("log", {"message": "x"})])

    body = series(run, smoothing=0.5)

    assert body["cursor"] == "1-7"
    assert body["points"] == 5
    assert body["x"] == [1, 2, 3, 4, 5]
    assert body["series"]["loss"]["mean"] == [4.0, 2.0, 1.33333, 1.0, 0.8]
    assert body["series"]["resident_bytes"]["mean"] == [1e9, 1e9, 1e9, 1e9, 1e9]
    assert set(body["series"]) == {"loss", "learning_rate", "gradient_norm", "tokens_per_second", "resident_bytes"}
    assert "min" not in body["series"]["loss"]
    assert json.loads(json.dumps(body, allow_nan=False)) == body


def test_the_average_is_that_of_the_definition_and_can_be_continued(bench: Bench) -> None:
    losses = [float(value) for value in np.random.default_rng(0).normal(2, 0.5, 1000)]
    level = weight = 0.0
    expected = []
    for loss in losses:
        level, weight = 0.9 * level + 0.1 * loss, 0.9 * weight + 0.1
        expected.append(level / weight)

    average, state = ema(np.array(losses), 0.9)

    assert np.allclose(average, expected, rtol=1e-12)
    assert math.isclose(state["l"], level, rel_tol=1e-12)
    assert math.isclose(state["w"], weight, rel_tol=1e-12)


def test_the_average_passes_over_what_is_not_finite() -> None:
    average, state = ema(np.array([np.nan, 1.0, np.inf, np.nan, 3.0]), 0.5)

    assert np.isnan(average[0])
    assert average[1:].tolist() == [1.0, 1.0, 1.0, (0.25 + 1.5) / 0.75]
    assert state == {"l": 1.75, "w": 0.75}
    assert ema(np.array([np.nan]), 0.5)[1] == {"l": 0.0, "w": 0.0}


def test_every_spike_is_in_some_bucket(bench: Bench) -> None:
    run = bench.launch()
    add(run, 1, [step(number, 50.0 if number == 777 else 1.0) for number in range(1, 2001)])

    body = series(run, ["loss"], buckets=100)

    loss = body["series"]["loss"]
    assert len(body["x"]) == len(loss["mean"]) == len(loss["max"]) == len(loss["ema"]) == 100
    assert (body["x"][0], body["x"][1], body["x"][-1]) == (1, 21, 1981)
    assert max(loss["max"]) == loss["max"][38] == 50.0
    assert loss["mean"][38] == 3.45
    assert max(loss["min"]) == 1.0


def test_a_zoom_shows_the_same_average(bench: Bench) -> None:
    run = bench.launch()
    add(run, 1, [step(number, float(number % 7)) for number in range(1, 501)])

    whole = series(run, ["loss"], buckets=500)
    part = series(run, ["loss"], start=101, end=200)

    assert part["x"] == list(range(101, 201))
    assert part["series"]["loss"]["ema"] == whole["series"]["loss"]["ema"][100:200]
    assert part["ema"] == whole["ema"]


def test_a_resumed_attempt_undoes_what_it_repeats(bench: Bench) -> None:
    run = bench.launch()
    add(run, 1, [("plan", {"start_step": 0}), *(step(number, 1.0) for number in range(1, 31)), ("eval", {"step": 25, "loss": 9.0})])
    add(run, 2, [("plan", {"start_step": 20}), *(step(number, 2.0) for number in range(21, 24)), ("eval", {"step": 22, "loss": 5.0})])

    body = series(run, ["loss"])

    assert body["x"] == list(range(1, 24))
    assert body["series"]["loss"]["mean"] == [1.0] * 20 + [2.0] * 3
    assert [(row["step"], row["loss"], row["x"]) for row in body["evals"]] == [(22, 5.0, 22)]
    assert body["cursor"] == "2-5"


def test_what_has_been_read_is_not_read_again(bench: Bench, django_assert_num_queries: Any) -> None:
    run = bench.launch()
    add(run, 1, [step(number, 1.0) for number in range(1, 11)])
    first = series(run, ["loss"])
    Record.objects.filter(run=run, seq__lte=5).update(step=None)
    add(run, 1, [step(number, 2.0) for number in range(11, 14)], first=11)

    # How far the archive is, the plans, the new steps, the evaluations, the checkpoints, the pauses.
    with django_assert_num_queries(6):
        second = series(run, ["loss"])

    assert first["x"] == list(range(1, 11))
    assert second["x"] == list(range(1, 14))
    assert second["series"]["loss"]["mean"] == [1.0] * 10 + [2.0] * 3
    assert second["cursor"] == "1-13"


def test_steps_without_a_number_are_named_and_not_drawn(bench: Bench) -> None:
    run = bench.launch()
    add(run, 1, [step(1, 1.0), step(2, None, nonfinite=True), step(3, 3.0), step(4, 4.0, gradient_norm=None)])

    body = series(run, ["loss", "gradient_norm"])
    cut = series(run, ["loss"], buckets=2)

    assert body["nonfinite"] == [2]
    assert body["nonfinite_count"] == 1
    assert body["series"]["loss"]["mean"] == [1.0, None, 3.0, 4.0]
    assert body["series"]["gradient_norm"]["mean"] == [1.5, 1.5, 1.5, None]
    assert cut["series"]["loss"]["mean"] == [1.0, 3.5]
    assert cut["series"]["loss"]["min"] == [1.0, 3.0]


@pytest.mark.parametrize(("axis", "expected"), [("epoch", [0.01, 0.02]), ("tokens", [1000, 2000]), ("seconds", [1.25, 2.5])])
def test_other_axes(bench: Bench, axis: Any, expected: list[float]) -> None:
    run = bench.launch()
    add(run, 1, [step(1, 1.0), step(2, 2.0), ("eval", {"step": 2, "split": "validation", "loss": 1.5})])

    body = series(run, ["loss"], axis)

    assert body["x"] == expected
    assert body["evals"] == [{"step": 2, "split": "validation", "loss": 1.5, "x": expected[1]}]


def test_a_run_without_a_step(bench: Bench) -> None:
    run = bench.launch()

    body = series(run)

    assert (body["cursor"], body["points"], body["x"], body["evals"]) == ("0-0", 0, [], [])
    assert body["series"]["loss"] == {"mean": [], "ema": []}


@pytest.mark.parametrize("wrong", [{"keys": ["data"]}, {"x": "loss"}, {"smoothing": 1.0}, {"buckets": 0}])
def test_what_is_not_there_is_refused(bench: Bench, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no such series"):
        series(bench.launch(), **wrong)


def test_an_empty_bucket_is_null() -> None:
    cut = bucketed(np.array([1.0, 2.0, np.nan, np.nan]), np.array([1.0, 1.5, 1.5, 1.5]), np.array([0, 2]))

    assert cut == {"mean": [1.5, None], "min": [1.0, None], "max": [2.0, None], "ema": [1.5, 1.5]}


@pytest.mark.slow
def test_many_steps_are_fast_and_small(bench: Bench) -> None:
    run = bench.launch()
    noise = np.random.default_rng(1).normal(2, 0.3, 20_000)
    add(run, 1, [step(number, float(loss)) for number, loss in enumerate(noise, 1)])

    spent = []
    for _ in range(2):
        began = time.process_time()
        body = series(run, KEYS)
        spent.append(time.process_time() - began)

    assert len(json.dumps(body)) < 250_000
    # 100 000 steps take 0.6 s of CPU on a busy machine, then 0.18 s; the bounds tell that from rows decoded in Python and read twice.
    assert spent[0] < 1.0
    assert spent[1] < spent[0]
