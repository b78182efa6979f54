"""The blocks of block-sparse runs: what their pages show of them, and what that costs."""

from __future__ import annotations

from typing import Any

from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench
from webapp.runs.blocks import Cell, heat_map, scores
from webapp.runs.models import Record, Run

SCORES = {"n": 2, "m": 3, "k": 1, "positions": [0], "scores": [1.0]}


def module(layer: int | None, name: str, mean: float) -> dict[str, Any]:
    return {**SCORES, "layer": layer, "module": name, "mean": mean, "replaced": mean / 2}


def tell(run: Run, attempt: int, step: int, *modules: dict[str, Any], name: str = "block_scores") -> None:
    data = {"step": step, "name": name, "modules": list(modules)}
    Record.objects.create(run=run, attempt=attempt, seq=100_000 + step, kind="method", step=step, at=0.0, data=data)


def test_the_page_has_every_step_and_the_table_of_the_last(bench: Bench, django_assert_num_queries: Any) -> None:
    run = stories.finished(bench.launch(method="block_sparse"))
    other = bench.launch(method="block_sparse", name="other")
    for attempt, step in ((1, 5), (1, 10), (2, 10), (2, 15)):
        tell(run, attempt, step, module(0, "q_proj", 0.1 * attempt), module(None, "head", 0.9), module(1, "q_proj", 0.5))
    tell(run, 2, 20, name="composition")
    run = Run.objects.select_related("team", "base_model").get(pk=run.pk)
    with django_assert_num_queries(3):  # the steps, the last event, the other runs
        found = heat_map(run)
    assert found["block_steps"] == [5, 10, 15]
    assert found["block_columns"] == ["q_proj", "head"]
    assert [(row.layer, row.cells) for row in found["block_rows"]] == [
        ("0", [Cell(0.2, 0.1, 0), None]),
        ("1", [Cell(0.5, 0.25, 3), None]),
        ("", [None, Cell(0.9, 0.45, 7)]),
    ]
    assert found["block_others"] == [{"id": other.id, "name": "other"}]
    assert [(data["step"], data["modules"][0]["mean"]) for data in scores(run)] == [(5, 0.1), (10, 0.2), (15, 0.2)]


def test_the_page_of_another_methods_run_asks_once(bench: Bench, django_assert_num_queries: Any) -> None:
    run = stories.finished(bench.launch())
    with django_assert_num_queries(1):
        assert heat_map(run) == {"block_steps": []}
