"""A run through the real engine: outbox, dispatcher, Celery worker, supervisor, `python -m jobs train` on a tiny model, artifacts."""

from __future__ import annotations

import hashlib
import signal
from functools import reduce
from typing import Any

import pytest

from jobs.events import Event
from tests.flow.site import Site, wait_for
from tests.tiny import make_tiny_model
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.fold import fold
from webapp.runs.models import Record, Run
from webapp.runs.services.cancel import cancel
from webapp.runs.services.pause import pause
from webapp.runs.services.resume import resume
from webapp.runs.states import State

ROWS = [{"prompt": f"Say {number}: ", "completion": "even" if number % 2 == 0 else "odd"} for number in range(64)]
PLAIN: dict[str, Any] = {
    "settings": {"rank": 4},
    "training": {"epochs": 2.0, "micro_batch": 4, "gradient_accumulation": 1, "precision": "float32", "checkpoint_every_steps": 4},
    "evaluation": {"generate": True, "max_new_tokens": 8, "samples": 1},
    "validation_share": 0.1,
}
# Long enough to be interrupted in the middle.
LONG = {**PLAIN, "training": {**PLAIN["training"], "epochs": 400.0}, "evaluation": {"generate": False, "samples": 0}}


@pytest.fixture
def bench(site: Site) -> Bench:
    bench = make_bench(rows=ROWS)
    make_tiny_model(bench.base_model.folder)
    site.start_dispatcher()
    site.start_worker("train0")
    return bench


def until(run: Run, state: State, seconds: float = 200) -> Run:
    def arrived() -> bool:
        run.refresh_from_db()
        assert run.state == state or not run.is_terminal, f"{run.state}: {run.message}"
        return run.state == state

    wait_for(arrived, seconds)
    return run


def until_checkpoint(run: Run, *, attempt: int = 1) -> None:
    wait_for(lambda: Record.objects.filter(run=run, attempt=attempt, kind="checkpoint").exists(), 100)


def first_step(run: Run, attempt: int) -> int:
    found = Record.objects.filter(run=run, attempt=attempt, kind="step").order_by("seq").values_list("step", flat=True).first()
    assert found is not None
    return found


def test_run_leaves_what_it_promised(site: Site, bench: Bench) -> None:
    run = until(bench.launch(**PLAIN), State.SUCCEEDED)
    assert run.last_step == run.total_steps > 0
    assert list(run.history.values_list("to_state", flat=True)) == ["queued", "starting", "running", "finalizing", "succeeded"]
    seqs = list(Record.objects.filter(run=run).values_list("seq", flat=True))
    assert seqs == list(range(1, len(seqs) + 1))
    steps = list(Record.objects.filter(run=run, kind="step").values_list("step", flat=True))
    assert steps == list(range(1, run.total_steps + 1))
    events = [Event(row.seq, row.at, row.kind, row.data) for row in Record.objects.filter(run=run)]  # type: ignore[arg-type]
    assert run.summary == reduce(fold, events, {})
    held_out = run.summary["evals"]["test"]
    assert held_out["tuned"]["loss"] < held_out["base"]["loss"]
    assert run.summary["peak_memory_bytes"] > 0
    artifacts = {artifact.kind: artifact for artifact in run.artifacts.all()}
    assert set(artifacts) == {"adapter", "merged"}
    for artifact in artifacts.values():
        body = artifact.file.read_bytes()
        assert (len(body), hashlib.sha256(body).hexdigest()) == (artifact.bytes, artifact.sha256)
        for member in artifact.files:
            content = body[member["offset"] : member["offset"] + member["bytes"]]
            assert hashlib.sha256(content).hexdigest() == member["sha256"]


def test_killed_worker_stopped_worker_and_pause_all_go_on_from_a_checkpoint(site: Site, bench: Bench) -> None:
    run = bench.launch(**LONG)
    until_checkpoint(run)
    site.kill("train0")
    wait_for(lambda: site.trainings() == [], 2)
    site.start_worker("train1")
    until_checkpoint(run, attempt=2)
    assert first_step(run, 2) > 4
    site.kill("train1", signal.SIGTERM)
    run.refresh_from_db()
    assert (run.state, run.infra_failures, run.last_checkpoint_step) == (State.QUEUED, 1, run.last_step)
    site.start_worker("train2")
    stopped_at = run.last_step
    until_checkpoint(run, attempt=3)
    assert first_step(run, 3) == stopped_at + 1
    pause(run, actor="alice")
    until(run, State.PAUSED)
    assert site.trainings() == []
    paused_at = run.last_step
    resume(run, actor="alice")
    wait_for(lambda: Record.objects.filter(run=run, attempt=4, kind="step").exists(), 100)
    assert first_step(run, 4) == paused_at + 1
    cancel(run, actor="alice")
    wait_for(lambda: Run.objects.filter(pk=run.pk, state=State.CANCELLED).exists(), 20)
    assert site.trainings() == []
    run.refresh_from_db()
    assert (run.attempt, run.infra_failures) == (4, 1)


def test_bad_input_fails_once_with_place_and_remedy(site: Site, bench: Bench) -> None:
    (bench.version.folder / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", \n')
    run = bench.launch(**PLAIN)
    wait_for(lambda: Run.objects.filter(pk=run.pk, state=State.FAILED).exists(), 100)
    run.refresh_from_db()
    assert (run.failure_code, run.exit_code, run.attempt) == ("json_invalid", 78, 1)
    assert "Line 2" in run.message
    assert run.remedy
