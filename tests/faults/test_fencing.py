"""A worker that is cut off, stopped or asleep loses its run, and can do nothing to it when it wakes."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from django.db import connection

from tests.faults.figures import record
from tests.faults.postgres import running
from tests.faults.waiting import holes, overlaps, running_again, stale_writes, until, until_step, wrong_in_history
from tests.flow.site import Site, wait_for
from tests.webapp.runs.rows import Bench
from webapp.runs.models import Run
from webapp.runs.services.cancel import cancel
from webapp.runs.states import State

SLOW = "--steps 4000 --seconds 0.05"


@contextmanager
def silent_database() -> Iterator[None]:
    """A database that answers nobody who writes: SQLite with its lock held, PostgreSQL stopped."""
    if connection.vendor == "sqlite":
        held = sqlite3.connect(connection.settings_dict["NAME"], timeout=20, isolation_level=None)
        held.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            held.execute("ROLLBACK")
            held.close()
        return
    server = running()
    assert server is not None
    server.signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal_all(signal.SIGCONT)


def begin(site: Site, bench: Bench) -> tuple[Run, psutil.Process]:
    """A run at work on the worker `train0`, and its training process; `train1` is idle."""
    site.start_dispatcher()
    site.start_worker("train0", trainer=SLOW)
    run = bench.launch()
    until_step(run, 3)
    site.start_worker("train1", trainer=SLOW)
    (training,) = site.trainings()
    return run, training


def dead(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def check(site: Site, run: Run) -> None:
    """Ends the run and looks at all that it left."""
    cancel(run, actor="alice")
    until(run, State.CANCELLED)
    time.sleep(1)
    record("overlaps", overlaps(site.var, run))
    record("stale", stale_writes(site, run))
    assert (overlaps(site.var, run), stale_writes(site, run), holes(run), wrong_in_history(run)) == (0, 0, 0, [])
    assert site.trainings() == []


def test_f5_cut_off_from_the_database_it_kills_its_own(site: Site, bench: Bench) -> None:
    run, training = begin(site, bench)
    with silent_database():
        began = time.monotonic()
        wait_for(lambda: dead(training), 10, every=0.02)
        record("cut_off", time.monotonic() - began, connection.vendor)
        assert time.monotonic() - began < 4.5
        # Until the lease has run out: the reaper cannot write either.
        time.sleep(max(0.0, 6 - (time.monotonic() - began)))
    running_again(run, 2)
    check(site, run)


def test_f6_a_stopped_supervisor_loses_its_training_and_writes_nothing_when_it_wakes(site: Site, bench: Bench) -> None:
    run, training = begin(site, bench)
    supervisor = training.parent()
    assert supervisor is not None
    supervisor.suspend()
    began = time.monotonic()
    wait_for(lambda: dead(training), 10, every=0.02)
    record("stopped", time.monotonic() - began)
    assert time.monotonic() - began < 4.5
    running_again(run, 2)
    supervisor.resume()
    until_step(run, run.last_step + 20, attempt=2)
    check(site, run)
    assert "fenced" in site.log("train0")


def test_f6_a_machine_that_slept_wakes_as_nobody(site: Site, bench: Bench) -> None:
    """Worker, supervisor and training are stopped together, as a virtual machine is; they wake when another has had the run for long."""
    run, training = begin(site, bench)
    tree = [psutil.Process(site.processes["train0"].pid)]
    tree += tree[0].children(recursive=True)
    for process in tree:
        process.suspend()
    running_again(run, 2)
    until_step(run, run.last_step + 10, attempt=2)
    for process in reversed(tree):
        process.resume()
    wait_for(lambda: dead(training), 2, every=0.02)
    until_step(run, run.last_step + 20, attempt=2)
    check(site, run)
