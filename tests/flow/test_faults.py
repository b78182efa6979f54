"""Faults around a training: real redis-server, dispatcher and Celery workers; a small program that keeps the engine's contract trains."""

from __future__ import annotations

import signal
import time
from typing import Any

import psutil
import pytest

from tests.flow.site import Site, alive, wait_for
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.models import Record, Run, RunEvent, Worker
from webapp.runs.services.cancel import cancel
from webapp.runs.services.pause import pause
from webapp.runs.services.resume import resume
from webapp.runs.states import State
from webapp.work.models import OutboxMessage
from webapp.work.outbox import ring

QUICK = "--steps 3 --seconds 0.02"
SLOW = "--steps 2000 --seconds 0.05"


@pytest.fixture
def bench(site: Site) -> Bench:
    return make_bench()


def state_of(run: Run) -> str:
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)


def until(run: Run, state: State, seconds: float = 20) -> Run:
    wait_for(lambda: state_of(run) == state, seconds)
    run.refresh_from_db()
    return run


def until_step(run: Run, step: int, *, attempt: int = 1) -> None:
    wait_for(lambda: Run.objects.filter(pk=run.pk, attempt=attempt, state=State.RUNNING, last_step__gte=step).exists(), 30)


def test_one_run_after_another(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer=QUICK)
    worker = Worker.objects.get()
    assert (worker.name, worker.queue, worker.run_id) == ("train0@site", "train", None)
    assert worker.device["kind"] in ("cpu", "cuda")
    runs = [bench.launch(name=f"run {number}") for number in range(3)]
    for run in runs:
        until(run, State.SUCCEEDED)
        assert run.attempt == 1
    entries: Any = site.redis().xrange(f"graft:run:{run.id}")
    assert [entry.decode() for entry, _fields in entries] == [f"1-{seq}" for seq in range(1, Record.objects.filter(run=run).count() + 1)]


def test_fifty_doorbells_one_start(site: Site, bench: Bench) -> None:
    run = bench.launch()
    for _ in range(49):
        ring("runs.train", run.id, "train")
    for name in ("train0", "train1"):
        site.start_worker(name, trainer=QUICK)
    site.start_dispatcher("dispatcher0")
    site.start_dispatcher("dispatcher1")
    until(run, State.SUCCEEDED)
    wait_for(lambda: not OutboxMessage.objects.filter(published_at=None).exists(), 20)
    wait_for(lambda: site.redis().llen("graft:train") == 0, 30)
    run.refresh_from_db()
    assert run.attempt == 1
    assert RunEvent.objects.filter(run=run, to_state=State.STARTING).count() == 1


def test_killed_worker_leaves_no_process_and_its_run_goes_on_elsewhere(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker("train0", trainer=SLOW)
    run = bench.launch()
    until_step(run, 3)
    assert len(site.trainings()) == 1
    children = psutil.Process(site.processes["train0"].pid).children(recursive=True)
    site.kill("train0")
    gone_at = time.monotonic()
    wait_for(lambda: not {child.pid for child in children} & {process.pid for process in alive()}, 2)
    assert time.monotonic() - gone_at < 2
    site.start_worker("train1", trainer="--steps 10 --seconds 0.05")
    until(run, State.SUCCEEDED, 30)
    assert (run.attempt, run.infra_failures) == (2, 1)
    history = list(RunEvent.objects.filter(run=run).values_list("to_state", "actor"))
    assert ("interrupted", "reaper") in history


def test_a_process_waits_for_the_next_run_and_dies_with_its_worker(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer=SLOW)
    (waiting,) = wait_for(site.standbys, 20)
    run = bench.launch()
    until_step(run, 2)
    assert [process.pid for process in site.trainings()] == [waiting.pid]
    assert site.standbys() == []
    cancel(run, actor="alice")
    until(run, State.CANCELLED, 10)
    (another,) = wait_for(site.standbys, 20)
    assert another.pid != waiting.pid
    assert another.parent() is not None
    site.kill("train0")
    wait_for(lambda: another.pid not in {process.pid for process in alive()}, 2)


def test_killed_pool_child_leaves_no_process(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer=SLOW)
    run = bench.launch()
    until_step(run, 3)
    training = site.trainings()[0]
    pool_child = training.parent()
    assert pool_child is not None
    assert pool_child.parent() == psutil.Process(site.processes["train0"].pid)
    pool_child.kill()
    wait_for(lambda: training.pid not in {process.pid for process in alive()}, 2)
    # The worker makes itself another child, and that takes the run when it is back in the queue.
    until_step(run, 3, attempt=2)


def test_cancel_queued_and_running(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer=SLOW)
    run, waiting = bench.launch(), bench.launch(name="waiting")
    until_step(run, 2)
    assert cancel(waiting, actor="alice").state == State.CANCELLED
    cancel(run, actor="alice")
    until(run, State.CANCELLED, 10)
    assert site.trainings() == []
    assert waiting.attempt == 0


def test_pause_gives_the_worker_to_the_next(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer=SLOW)
    run, following = bench.launch(), bench.launch(name="next")
    until_step(run, 2)
    pause(run, actor="alice")
    until(run, State.PAUSED)
    until_step(following, 2)
    resume(run, actor="alice")
    cancel(following, actor="alice")
    until_step(run, run.last_checkpoint_step + 2, attempt=2)
    first = Record.objects.filter(run=run, attempt=2, kind="step").values_list("step", flat=True)[0]
    assert first == run.last_checkpoint_step + 1


def test_worker_told_to_stop_writes_a_checkpoint_and_gives_the_run_back(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker("train0", trainer=SLOW)
    run = bench.launch()
    until_step(run, 2)
    site.kill("train0", signal.SIGTERM)
    run.refresh_from_db()
    assert (run.state, run.infra_failures) == (State.QUEUED, 0)
    assert run.last_checkpoint_step == run.last_step >= 2
    assert site.trainings() == []
    site.start_worker("train1", trainer=SLOW)
    until_step(run, run.last_step + 1, attempt=2)


def test_lost_doorbells_are_rung_again(site: Site, bench: Bench) -> None:
    dispatcher = site.start_dispatcher()
    runs = [bench.launch(name=f"run {number}") for number in range(5)]
    wait_for(lambda: not OutboxMessage.objects.filter(published_at=None).exists(), 20)
    site.redis().flushall()
    site.start_worker(trainer=QUICK)
    for run in runs:
        assert until(run, State.SUCCEEDED, 30).attempt == 1
    assert dispatcher.poll() is None


def test_launch_while_redis_is_down(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer=QUICK)
    site.kill("redis")
    began = time.monotonic()
    run = bench.launch()
    assert time.monotonic() - began < 1
    wait_for(lambda: "outbox: waiting for a service" in site.log("dispatcher"), 10)
    assert state_of(run) == State.QUEUED
    site.start_redis()
    until(run, State.SUCCEEDED, 30)


def test_redis_killed_while_training_loses_no_point(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer="--steps 60 --seconds 0.1")
    run = bench.launch()
    until_step(run, 5)
    site.kill("redis")
    until_step(run, 20)
    site.start_redis()
    until(run, State.SUCCEEDED, 30)
    seqs = list(Record.objects.filter(run=run).values_list("seq", flat=True))
    assert seqs == list(range(1, len(seqs) + 1))
    entries: Any = site.redis().xrange(f"graft:run:{run.id}")
    assert [entry.decode() for entry, _fields in entries] == [f"1-{seq}" for seq in seqs]
