"""The columns that lists sort by say what the summary says, from the first event to the end."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.utils.timezone import now

from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench
from webapp.runs import lease
from webapp.runs.ingest import Archive
from webapp.runs.listed import listed
from webapp.runs.models import Run
from webapp.runs.states import State

NOTHING = {"train_loss": None, "eval_loss": None, "accuracy": None, "peak_memory_bytes": None}


def evaluated(**figures: Any) -> dict[str, Any]:
    return {"evals": {"test": {"base": {"loss": 3.0}, "tuned": {"loss": 1.0, **figures}}, "validation": {"loss": 2.0}}}


@pytest.mark.parametrize(
    ("summary", "columns"),
    [
        ({}, {}),
        ({"latest": {"loss": 0.5}, "peak_memory_bytes": 7}, {"train_loss": 0.5, "peak_memory_bytes": 7}),
        ({"latest": {"loss": None}}, {}),
        ({"evals": {"validation": {"loss": 2.0}}}, {"eval_loss": 2.0}),
        (evaluated(), {"eval_loss": 1.0}),
        (evaluated(label_accuracy=0.75), {"eval_loss": 1.0, "accuracy": 0.75}),
        (evaluated(metrics={"accuracy": 0.25}), {"eval_loss": 1.0, "accuracy": 0.25}),
        # An error that is the smaller the better is no accuracy.
        (evaluated(metrics={"mean_squared_error": 0.25}), {"eval_loss": 1.0}),
    ],
)
def test_the_columns_of_a_summary(summary: dict[str, Any], columns: dict[str, Any]) -> None:
    assert listed(summary) == NOTHING | columns


def test_they_are_written_with_the_summary(bench: Bench, tmp_path: Any) -> None:
    run = bench.launch()
    started = now() - timedelta(minutes=3)
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING, attempt=1, started_at=started)
    run.refresh_from_db()
    story = stories.Story(run, total_steps=4).begin().steps(1, 4)
    file = tmp_path / "events.jsonl"
    file.write_text("".join(event.to_line() for event in story.events), encoding="utf-8")
    assert Archive(run, file).ship()
    run.refresh_from_db()
    assert run.train_loss == run.summary["latest"]["loss"]
    assert run.eval_loss == run.summary["evals"]["validation"]["loss"]
    assert run.peak_memory_bytes == run.summary["peak_memory_bytes"]
    assert run.duration is not None
    assert timedelta(minutes=3) <= run.duration < timedelta(minutes=4)


def test_the_duration_ends_with_the_run(bench: Bench) -> None:
    started, waits = bench.launch(), bench.launch()
    Run.objects.filter(pk=started.pk).update(state=State.RUNNING, started_at=now() - timedelta(hours=2))
    assert lease.move(started.pk, 0, to=State.FAILED, frm=(State.RUNNING,), actor="test")
    assert lease.move(waits.pk, 0, to=State.CANCELLED, frm=(State.QUEUED,), actor="test")
    started.refresh_from_db()
    waits.refresh_from_db()
    assert started.duration is not None
    assert timedelta(hours=2) <= started.duration < timedelta(hours=2, minutes=1)
    assert waits.duration is None


def test_the_migration_fills_in_runs_of_before(bench: Bench) -> None:
    run = stories.finished(bench.launch(), 20)
    Run.objects.update(duration=None, **NOTHING)
    import_module("webapp.runs.migrations.0005_lists").fill(apps, None)
    again = Run.objects.get()
    assert (again.train_loss, again.eval_loss, again.accuracy) == (run.train_loss, 0.12, 0.95)
    assert again.peak_memory_bytes == run.peak_memory_bytes
    assert again.duration == again.finished_at - again.started_at
