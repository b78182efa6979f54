"""What is promised in seconds, with the clocks that a site has when nothing is set."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tests.faults.figures import record
from tests.faults.waiting import (
    behave,
    holes,
    overlaps,
    running_again,
    stale_writes,
    until,
    until_step,
    with_production_clocks,
    wrong_in_history,
)
from tests.flow.site import Site, wait_for
from tests.webapp.runs.rows import Bench
from webapp.runs.services.cancel import cancel
from webapp.runs.states import State

SLOW = "--steps 4000 --seconds 0.05"


@pytest.fixture(autouse=True)
def clocks(site: Site) -> None:
    with_production_clocks(site)


def test_f3_a_killed_workers_run_is_running_again(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker("train0", trainer=SLOW)
    run = bench.launch()
    until_step(run, 5)
    site.kill("train0")
    killed = time.monotonic()
    site.start_worker("train1", trainer=SLOW)
    seconds = running_again(run, attempt=2, seconds=100) - killed
    record("restart", seconds, "lease 60 s, grace 15 s")
    assert seconds <= 90
    cancel(run, actor="alice")
    until(run, State.CANCELLED)
    record("overlaps", overlaps(site.var, run))
    record("stale", stale_writes(site, run))
    assert (overlaps(site.var, run), stale_writes(site, run), holes(run), wrong_in_history(run)) == (0, 0, 0, [])


def test_f15_cancel_means_that_the_process_is_dead(site: Site, bench: Bench) -> None:
    """Eight that listen, and two that do not and have to be killed when their grace of 10 s is over."""
    site.start_dispatcher()
    site.start_worker(trainer=SLOW)
    seconds = []
    for number in range(10):
        run = bench.launch(name=f"run {number}")
        behave(site, run, SLOW + (" --behave deaf" if number in (3, 7) else ""))
        until_step(run, 2)
        (training,) = site.trainings()
        cancel(run, actor="alice")
        asked = time.monotonic()
        wait_for(lambda process=training: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 30, every=0.02)
        seconds.append(time.monotonic() - asked)
        until(run, State.CANCELLED)
    # Of ten, the 99th percentile is the longest.
    record("cancel", max(seconds), f"10 cancels; those that listen {sorted(seconds)[7]:.2f} s at most, two that do not are killed")
    assert max(seconds) <= 20


def test_f12_a_worker_that_is_told_to_stop(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker("train0", trainer=SLOW)
    run = bench.launch()
    until_step(run, 5)
    began = time.monotonic()
    site.kill("train0", signal.SIGTERM)
    seconds = time.monotonic() - began
    run.refresh_from_db()
    assert (run.state, run.infra_failures, run.last_checkpoint_step) == (State.QUEUED, 0, run.last_step)
    record("sigterm", seconds, "a step of 0.05 s")
    record("lost_steps", run.last_step - run.last_checkpoint_step)
    assert seconds <= 60
