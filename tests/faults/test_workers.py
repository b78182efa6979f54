"""Workers, pool children and trainings that are killed, hang, run out of memory, crash, or are told to stop."""

from __future__ import annotations

import random
import signal
import time

import psutil
import pytest

from jobs.errors import GraftError
from tests.faults.figures import record
from tests.faults.waiting import (
    behave,
    holes,
    overlaps,
    running_again,
    stale_writes,
    state_of,
    until,
    until_step,
    written,
    wrong_in_history,
)
from tests.flow.site import Site, alive, wait_for
from tests.webapp.runs.rows import Bench
from webapp.runs import lease
from webapp.runs.models import Record, Run, RunEvent
from webapp.runs.services.cancel import cancel
from webapp.runs.services.pause import pause
from webapp.runs.services.resume import resume
from webapp.runs.states import ACTIVE, State

SLOW = "--steps 4000 --seconds 0.05"


def survivors(before: list[psutil.Process], seconds: float = 2) -> int:
    """How many of these processes live after so long."""
    until_then = time.monotonic() + seconds
    pids = {process.pid for process in before}
    while pids & {process.pid for process in alive()}:
        if time.monotonic() > until_then:
            return len(pids & {process.pid for process in alive()})
        time.sleep(0.02)
    return 0


def test_f3_what_the_killed_had_not_shipped_is_in_the_archive_before_the_next_attempt(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker("train0", trainer=SLOW)
    run = bench.launch()
    until_step(run, 1, attempt=1)
    (training,) = site.trainings()
    pool_child = training.parent()
    assert pool_child is not None
    pool_child.suspend()
    time.sleep(0.3)
    shipped = Record.objects.filter(run=run).count()
    wait_for(lambda: len(written(site.var, run)[1]) >= shipped + 10, 10)
    pool_child.kill()
    running_again(run, 2)
    lines = [event["seq"] for event in written(site.var, run)[1]]
    assert len(lines) >= shipped + 10
    assert list(Record.objects.filter(run=run, attempt=1).order_by("pk").values_list("seq", flat=True)) == lines
    cancel(run, actor="alice")
    until(run, State.CANCELLED)


@pytest.mark.parametrize("seed", [1, 2])
def test_f3_f7_killed_twice_at_random_it_goes_on_elsewhere(site: Site, bench: Bench, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 moments, no secrets
    site.start_dispatcher()
    site.start_worker("train0", trainer=SLOW)
    run = bench.launch()
    for attempt in (1, 2):
        site.start_worker(f"train{attempt}", trainer=SLOW)
        until_step(run, 1, attempt=attempt)
        time.sleep(chance.uniform(0, 1))
        tree = psutil.Process(site.processes[f"train{attempt - 1}"].pid)
        victim = chance.choice(["main", "pool child", "training"]) if attempt > 1 else "main"
        children = tree.children(recursive=True)
        started = time.monotonic()
        if victim == "main":
            site.kill(f"train{attempt - 1}")
            record("survivors", survivors(children), "kill -9 of a worker's main process, its pool child, its training")
        else:
            (training,) = site.trainings()
            (training.parent() if victim == "pool child" else training).kill()
            if victim == "pool child":
                record("survivors", survivors([training]))
        again = running_again(run, attempt + 1) - started
        if victim == "main":
            record("restart_short", again, f"seed {seed}")
    cancel(run, actor="alice")
    until(run, State.CANCELLED)
    record("overlaps", overlaps(site.var, run))
    record("stale", stale_writes(site, run))
    assert (overlaps(site.var, run), stale_writes(site, run), holes(run), wrong_in_history(run)) == (0, 0, 0, [])
    assert site.trainings() == []


def test_f4_a_claim_that_was_never_followed_by_a_sign_of_life(site: Site, bench: Bench) -> None:
    run = bench.launch()
    assert lease.claim(run.pk, "train9@nowhere") is not None
    claimed = time.monotonic()
    site.start_dispatcher()
    until(run, State.QUEUED, 20)
    assert time.monotonic() - claimed < 4 + 1 + 4
    site.start_worker(trainer="--steps 3")
    assert until(run, State.SUCCEEDED).attempt == 2
    assert RunEvent.objects.filter(run=run, to_state=State.INTERRUPTED, actor="reaper").count() == 1


def test_f10_a_child_killed_for_its_memory_is_not_tried_for_ever(site: Site, bench: Bench) -> None:
    """The kernel's killer sends SIGKILL: to a child of ours, for it stands first in line (tests/faults/test_engine.py)."""
    site.start_dispatcher()
    site.start_worker(trainer="--steps 5 --seconds 0.02")
    run, another = bench.launch(), bench.launch(name="another")
    behave(site, run, "--steps 5 --behave killed")
    until(run, State.FAILED, 60)
    until(another, State.SUCCEEDED)
    record("out_of_memory", run.attempt, "then failed with host_oom")
    assert run.failure_code == GraftError("host_oom").code
    assert run.attempt <= 5
    assert wrong_in_history(run) == []
    assert site.processes["train0"].poll() is None


def test_f11_a_child_that_dies_of_a_memory_error_holds_nothing_up(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer=SLOW)
    run, following = bench.launch(), bench.launch(name="next")
    behave(site, run, "--steps 5 --behave memory")
    until(run, State.FAILED)
    failed = time.monotonic()
    assert "MemoryError" in run.message
    seconds = running_again(following, 1) - failed
    record("after_crash", max(0.0, seconds))
    assert seconds < 5


def test_f12_told_to_stop_in_a_step_four_times(site: Site, bench: Bench) -> None:
    chance = random.Random(12)  # noqa: S311 moments, no secrets
    site.start_dispatcher()
    run = bench.launch()
    lost = 0
    for attempt in range(1, 5):
        site.start_worker(f"train{attempt}", trainer=SLOW)
        until_step(run, run.last_step + 1, attempt=attempt)
        time.sleep(chance.uniform(0, 0.3))
        began = time.monotonic()
        site.kill(f"train{attempt}", signal.SIGTERM)
        record("sigterm", time.monotonic() - began)
        run.refresh_from_db()
        told = [event["data"]["step"] for event in written(site.var, run)[attempt] if event["kind"] == "step"]
        lost += told[-1] - run.last_checkpoint_step
        assert (run.state, run.infra_failures, site.trainings()) == (State.QUEUED, 0, [])
    record("lost_steps", lost, "4 stops")
    steps = [event["data"]["step"] for events in written(site.var, run).values() for event in events if event["kind"] == "step"]
    assert steps == list(range(1, run.last_step + 1))
    assert (lost, holes(run), wrong_in_history(run)) == (0, 0, [])


def test_f15_a_cancel_outlives_the_worker_that_should_have_heard_it(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    worker = site.start_worker("train0", trainer=SLOW)
    run = bench.launch()
    until_step(run, 2)
    worker.send_signal(signal.SIGSTOP)
    for child in psutil.Process(worker.pid).children():
        child.suspend()
    cancel(run, actor="alice")
    site.kill("train0")
    site.start_worker("train1", trainer=SLOW)
    until(run, State.CANCELLED, 20)
    assert (run.attempt, site.trainings(), wrong_in_history(run)) == (1, [], [])


def test_f16_a_child_that_hangs_is_stopped_and_leaves_its_stacks(site: Site, bench: Bench) -> None:
    site.environment["GRAFT_STALL_SECONDS"] = "2"
    site.start_dispatcher()
    site.start_worker(trainer="--steps 5 --seconds 0.05 --behave hang")
    run = bench.launch()
    wait_for(lambda: Run.objects.filter(pk=run.pk, last_step=2).exists(), 20)
    silent = time.monotonic()
    until(run, State.FAILED, 20)
    seconds = time.monotonic() - silent
    record("hang", max(0.0, seconds - 2), "limit 2 s")
    assert (run.failure_code, site.trainings()) == ("stalled", [])
    assert seconds < 2 + 10
    log = (run.attempt_folder(1) / "child.log").read_text()
    assert "misfortune" in log, "the stack of the thread that hangs"


def test_f27_runs_that_crash_do_not_hold_up_others(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer="--steps 5 --seconds 0.02")
    poison = [bench.launch(name=f"poison {number}") for number in range(3)]
    for run in poison:
        behave(site, run, "--steps 5 --behave segfault")
    began = time.monotonic()
    good = bench.launch(name="good")
    behave(site, good, SLOW)
    seconds = running_again(good, 1) - began
    record("poison", seconds, "three of them before it in the queue")
    assert seconds < 10
    cancel(good, actor="alice")
    for run in poison:
        until(run, State.FAILED, 60)
        assert (run.failure_code, run.attempt) == ("crashed", 3)


def test_pause_kill_and_resume(site: Site, bench: Bench) -> None:
    """The worker dies while the training writes the checkpoint of a pause: the run rests all the same, and goes on where it can."""
    site.start_dispatcher()
    worker = site.start_worker("train0", trainer=SLOW)
    run = bench.launch()
    until_step(run, 3)
    for child in psutil.Process(worker.pid).children():
        child.suspend()
    pause(run, actor="alice")
    site.kill("train0")
    until(run, State.PAUSED, 20)
    assert (run.infra_failures, site.trainings()) == (1, [])
    site.start_worker("train1", trainer="--steps 20 --seconds 0.02")
    time.sleep(1)
    assert state_of(run) == State.PAUSED
    resume(run, actor="alice")
    until(run, State.SUCCEEDED)
    assert (run.attempt, holes(run), overlaps(site.var, run), wrong_in_history(run)) == (2, 0, 0, [])


def test_f14_cancel_against_the_end_twenty_times(site: Site, bench: Bench) -> None:
    chance = random.Random(14)  # noqa: S311 moments, no secrets
    site.start_dispatcher()
    site.start_worker(trainer="--steps 3 --seconds 0.02")
    # One that nobody cancels, for how long a run takes here and now.
    whole = bench.launch(name="whole")
    wait_for(lambda: state_of(whole) != State.QUEUED, 20, every=0.01)
    began = time.monotonic()
    until(whole, State.SUCCEEDED)
    usual = time.monotonic() - began
    wrong, ends = 0, []
    for number in range(20):
        run = bench.launch(name=f"run {number}")
        wait_for(lambda run=run: state_of(run) != State.QUEUED, 20, every=0.01)
        time.sleep(chance.uniform(0, 1.3 * usual))
        try:
            cancel(run, actor="alice")
        except GraftError as refused:
            assert refused.code == "run_state"  # noqa: PT017
        wait_for(lambda run=run: state_of(run) not in ACTIVE, 20)
        run.refresh_from_db()
        last = RunEvent.objects.filter(run=run).order_by("-seq").values_list("to_state", flat=True)[0]
        published = run.artifacts.count()
        wrong += bool(wrong_in_history(run)) or last != run.state or (published > 0) != (run.state == State.SUCCEEDED)
        ends.append(str(run.state))
    record("races", wrong, f"{ends.count('cancelled')} cancelled, {ends.count('succeeded')} succeeded")
    assert wrong == 0
    assert set(ends) == {State.CANCELLED, State.SUCCEEDED}
