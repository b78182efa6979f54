"""The supervisor with a real child process that keeps the contract, and goes wrong in every way that the outcome table knows."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from django.db import connection

from tests.flow.site import wait_for
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs import lease
from webapp.runs.kinds import Kind
from webapp.runs.models import Artifact, Record, Run, RunEvent
from webapp.runs.services.cancel import cancel
from webapp.runs.services.pause import pause
from webapp.runs.services.resume import resume
from webapp.runs.states import ACTIVE, State
from webapp.runs.supervisor import Supervisor
from webapp.settings.env import ENV

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def bench(transactional_db: None, settings: Any, tmp_path: Any) -> Bench:
    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    return make_bench()


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {
        "heartbeat_seconds": 0.2,
        "desired_poll_seconds": 0.1,
        "cancel_grace_seconds": 0.5,
        "lease_seconds": 5.0,
        "stop_grace_seconds": 5.0,
    }
    for name, value in short.items():
        monkeypatch.setattr(ENV, name, value)


def command(*options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.webapp.runs.trainer", *options)


def supervise(run: Run, *options: str, shutdown: Callable[[], bool] = lambda: False) -> Run:
    """One attempt, from the claim to its end."""
    claimed = lease.claim(run.id, "train0")
    assert claimed is not None
    Supervisor(claimed, owner="train0", shutdown=shutdown, command=command(*options)).run()
    run.refresh_from_db()
    return run


class Aside:
    """Supervises in a thread of its own, so that the test can act meanwhile."""

    def __init__(self, run: Run, *options: str, shutdown: Callable[[], bool] = lambda: False) -> None:
        self.run = run
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(options, shutdown))
        self._thread.start()

    def _work(self, options: tuple[str, ...], shutdown: Callable[[], bool]) -> None:
        try:
            supervise(Run.objects.get(pk=self.run.pk), *options, shutdown=shutdown)
        except BaseException as failure:  # noqa: BLE001
            self.failure = failure
        finally:
            connection.close()

    def until_step(self, step: int) -> None:
        wait_for(Run.objects.filter(pk=self.run.pk, last_step__gte=step).exclude(state=State.STARTING).exists, 20)

    def end(self) -> Run:
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert self.failure is None
        self.run.refresh_from_db()
        return self.run


@pytest.fixture
def aside() -> Iterator[Callable[..., Aside]]:
    started: list[Aside] = []

    def start(*arguments: Any, **options: Any) -> Aside:
        started.append(Aside(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one._thread.join(30)


def history(run: Run) -> list[str]:
    return list(RunEvent.objects.filter(run=run).values_list("to_state", flat=True))


def test_success_is_archived_and_published(bench: Bench) -> None:
    run = supervise(bench.launch())
    assert run.state == State.SUCCEEDED
    assert history(run) == ["queued", "starting", "running", "finalizing", "succeeded"]
    seqs = list(Record.objects.filter(run=run).values_list("seq", flat=True))
    assert seqs == list(range(1, len(seqs) + 1))
    assert (run.last_step, run.total_steps, run.owner, run.exit_code) == (5, 5, "", 0)
    assert run.summary["latest"]["loss"] == 0.8
    assert run.started_at is not None
    assert run.finished_at is not None
    artifact = Artifact.objects.get(run=run)
    assert artifact.file.read_bytes() == b"weights" * 1000
    assert not (run.attempt_folder(1) / "tmp").exists()
    assert run.attempt_folder(1).stat().st_mode & 0o777 == 0o700


def test_child_gets_no_secret(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_SECRET_KEY", "hush")
    monkeypatch.setenv("DATABASE_URL", "postgres://somebody:s3cr3t@somewhere/graft")
    monkeypatch.setenv("HF_TOKEN", "hf_s3cr3t")
    run = supervise(bench.launch())
    lines = (run.attempt_folder(1) / "environment").read_text().splitlines()
    names = {line.split("=")[0] for line in lines}
    assert {"PATH", "HOME", "TMPDIR", "HF_HUB_OFFLINE"} <= names
    assert not {"GRAFT_SECRET_KEY", "DATABASE_URL", "HF_TOKEN"} & names
    assert not any("s3cr3t" in line for line in lines)


@pytest.mark.parametrize(
    ("behave", "code", "exit_code", "words"),
    [
        ("nonfinite", "nonfinite", 79, "The loss was not finite. (line 7)"),
        ("mute", "internal", 1, "Something in Graft failed: exit code 1\nTraceback: boom in the loop."),
        ("damaged", "artifact_damaged", 0, "'adapter.zip' is not as it was written: its SHA-256 is another."),
    ],
)
def test_failure_says_why_and_is_not_tried_again(bench: Bench, behave: str, code: str, exit_code: int, words: str) -> None:
    run = supervise(bench.launch(), "--behave", behave)
    assert (run.state, run.failure_code, run.exit_code, run.message) == (State.FAILED, code, exit_code, words)
    assert run.remedy
    assert run.finished_at is not None
    assert not Artifact.objects.exists()


def test_crashed_child_is_tried_again_twice(bench: Bench) -> None:
    run = bench.launch()
    states = [supervise(run, "--behave", "segfault").state for _ in range(3)]
    assert states == [State.QUEUED, State.QUEUED, State.FAILED]
    assert (run.failure_code, run.attempt, run.infra_failures) == ("crashed", 3, 3)


def test_preempted_by_somebody_else_goes_on_from_the_checkpoint(bench: Bench) -> None:
    run = supervise(bench.launch(), "--behave", "preempted")
    assert (run.state, run.infra_failures, run.last_checkpoint_step) == (State.QUEUED, 0, 3)
    run = supervise(run)
    assert (run.state, run.attempt) == (State.SUCCEEDED, 2)
    steps = Record.objects.filter(run=run, kind="step").values_list("attempt", "step")
    assert list(steps) == [(1, 1), (1, 2), (2, 4), (2, 5)]


def test_what_is_no_training_begins_anew(bench: Bench) -> None:
    run = bench.launch()
    Run.objects.filter(pk=run.pk).update(kind=Kind.ANALYSE)
    assert supervise(run, "--behave", "preempted").state == State.QUEUED
    assert supervise(run).state == State.SUCCEEDED
    steps = Record.objects.filter(run=run, kind="step").values_list("attempt", "step")
    assert list(steps) == [(1, 1), (1, 2), *((2, step) for step in range(1, 6))]
    assert history(run)[-4:] == ["starting", "running", "finalizing", "succeeded"]


def test_pause_and_resume(bench: Bench, aside: Callable[..., Aside]) -> None:
    run = bench.launch()
    first = aside(run, "--steps", "200", "--seconds", "0.05")
    first.until_step(2)
    pause(run, actor="alice")
    assert first.end().state == State.PAUSED
    assert run.last_checkpoint_step == run.last_step >= 2
    assert "stopping" in history(run)
    resume(run, actor="alice")
    assert (run.state, run.desired) == (State.QUEUED, "run")
    paused_at = run.last_step
    assert supervise(run, "--steps", str(paused_at + 2)).state == State.SUCCEEDED
    assert Record.objects.filter(run=run, kind="step").values_list("step", flat=True).distinct().count() == paused_at + 2


def test_resume_while_it_is_still_pausing_queues_it(bench: Bench, aside: Callable[..., Aside]) -> None:
    run = bench.launch()
    first = aside(run, "--steps", "20", "--seconds", "0.6")
    first.until_step(1)
    pause(run, actor="alice")
    wait_for(lambda: Run.objects.get(pk=run.pk).state == State.STOPPING, 10)
    resume(run, actor="alice")
    assert first.end().state == State.QUEUED
    assert run.desired == "run"


def test_cancel_is_done_when_every_process_is_dead(bench: Bench, aside: Callable[..., Aside]) -> None:
    run = bench.launch()
    first = aside(run, "--steps", "200", "--seconds", "0.05", "--behave", "grandchild")
    first.until_step(2)
    grandchild = psutil.Process(int((run.attempt_folder(1) / "grandchild").read_text()))
    cancel(run, actor="alice")
    assert first.end().state == State.CANCELLED
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_cancel_kills_a_child_that_does_not_listen(bench: Bench, aside: Callable[..., Aside]) -> None:
    run = bench.launch()
    first = aside(run, "--steps", "2000", "--seconds", "0.05", "--behave", "deaf")
    first.until_step(2)
    asked = time.monotonic()
    cancel(run, actor="alice")
    assert first.end().state == State.CANCELLED
    assert time.monotonic() - asked < ENV.cancel_grace_seconds + 3


def test_shutdown_of_the_worker_queues_the_run_without_a_failure(bench: Bench, aside: Callable[..., Aside]) -> None:
    run = bench.launch()
    told = threading.Event()
    first = aside(run, "--steps", "200", "--seconds", "0.05", shutdown=told.is_set)
    first.until_step(2)
    told.set()
    assert first.end().state == State.QUEUED
    assert (run.infra_failures, run.last_checkpoint_step) == (0, run.last_step)


def test_stalled_child_is_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "stall_seconds", 1.0)
    run = supervise(bench.launch(), "--behave", "hang")
    assert (run.state, run.failure_code) == (State.FAILED, "stalled")
    assert run.message == "Nothing was heard from the training for 1 seconds, and it was stopped."


def test_without_renewal_the_child_is_killed_and_nothing_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "self_fence_seconds", 0.8)
    monkeypatch.setattr(ENV, "heartbeat_seconds", 60.0)
    run = supervise(bench.launch(), "--steps", "500", "--seconds", "0.05")
    # It still looks alive: the reaper will find it.
    assert run.state in ACTIVE
    assert not any("trainer" in " ".join(process.cmdline()) for process in psutil.Process(os.getpid()).children())


def test_reaped_attempt_stops_and_writes_nothing_more(bench: Bench, aside: Callable[..., Aside]) -> None:
    run = bench.launch()
    first = aside(run, "--steps", "500", "--seconds", "0.05")
    first.until_step(2)
    failure = lease.Failure("infra", "lost", "")
    assert lease.interrupt(run.id, 1, actor="reaper", detail="test", failure=failure, retries=3) == State.QUEUED
    written = Record.objects.filter(run=run).count()
    first.end()
    assert run.state == State.QUEUED
    assert Record.objects.filter(run=run).count() == written
    assert history(run)[-2:] == ["interrupted", "queued"]
