"""The database under many writers, restarted amid a run, copied while it is written; and clocks that disagree with its own."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from django.db import OperationalError, connection
from django.db.models import ProtectedError

from tests.faults.figures import record
from tests.faults.postgres import Postgres, running
from tests.faults.waiting import holes, overlaps, running_again, stale_writes, until, until_step, with_production_clocks, wrong_in_history
from tests.flow.site import Site, database_url, wait_for
from tests.webapp.runs.rows import Bench
from webapp.runs.models import Record, Run, RunEvent
from webapp.runs.services.cancel import cancel
from webapp.runs.states import State
from webapp.settings.env import PROJECT
from webapp.work.models import OutboxMessage

SLOW = "--steps 4000 --seconds 0.05"
sqlite_only = pytest.mark.skipif("connection.vendor != 'sqlite'")
postgres_only = pytest.mark.skipif("connection.vendor != 'postgresql'")

# Writes as the supervisor does (a guarded UPDATE, then rows), beside two threads that read as pages do, for as long as it is told.
LOAD = """
import json, sys, threading, time, uuid
import django
django.setup()
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from webapp.runs.models import Record, Run
run_id, attempt, seconds = uuid.UUID(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
over, errors = time.monotonic() + seconds, []

def read():
    while time.monotonic() < over:
        try:
            list(Run.objects.values_list("state")[:20])
            Record.objects.filter(run=run_id).count()
        except DatabaseError as failure:
            errors.append(str(failure))
    connection.close()

readers = [threading.Thread(target=read) for _ in range(2)]
for reader in readers:
    reader.start()
written, slowest = 0, 0.0
while time.monotonic() < over:
    began = time.monotonic()
    try:
        with transaction.atomic():
            Run.objects.filter(pk=run_id).update(changed_at=Now())
            Record.objects.bulk_create(
                Record(run_id=run_id, attempt=attempt, seq=written + n, kind="step", step=n, at=0.0, data={}) for n in range(1, 21)
            )
        written += 20
    except DatabaseError as failure:
        errors.append(str(failure))
    slowest = max(slowest, time.monotonic() - began)
for reader in readers:
    reader.join()
print(json.dumps({"written": written, "errors": errors, "slowest": slowest}))
"""


def load(site: Site, run: Run, attempt: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LOAD, str(run.pk), str(attempt), str(seconds)]
    return subprocess.Popen(command, cwd=PROJECT, env=site.environment, stdout=subprocess.PIPE, text=True)


@sqlite_only
def test_f25_eight_writers_and_sixteen_readers(site: Site, bench: Bench) -> None:
    run = bench.launch()
    answers = [json.loads(writer.communicate(timeout=100)[0]) for writer in [load(site, run, number, 12) for number in range(1, 9)]]
    errors = [error for answer in answers for error in answer["errors"]]
    written = sum(answer["written"] for answer in answers)
    slowest = max(answer["slowest"] for answer in answers)
    record("locked", len(errors), f"{written} rows in 12 s, the slowest transaction {slowest:.1f} s")
    assert errors == []
    assert Record.objects.filter(run=run).count() == written > 0


@sqlite_only
def test_f59_a_copy_made_while_it_is_written_is_whole(site: Site, bench: Bench, tmp_path: Path) -> None:
    """SQLite's own way to copy, as docs/operations.md says; and a site on that copy knows its runs."""
    run = bench.launch()
    writers = [load(site, run, number, 6) for number in (1, 2)]
    wait_for(lambda: Record.objects.filter(run=run).count() > 200, 30)
    target = tmp_path / "restored" / "graft.sqlite3"
    target.parent.mkdir()
    with sqlite3.connect(connection.settings_dict["NAME"]) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    for writer in writers:
        writer.communicate(timeout=60)
    with sqlite3.connect(target) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("PRAGMA foreign_key_check").fetchall() == []
        seqs = [seq for (seq,) in copy.execute("SELECT seq FROM runs_record WHERE attempt = 1 ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1))
    shutil.copytree(site.var / "datasets", target.parent / "datasets", dirs_exist_ok=True)
    environment = {**site.environment, "GRAFT_VAR": str(target.parent), "DATABASE_URL": f"sqlite:///{target}"}
    script = "import django; django.setup(); from webapp.runs.models import Run; r = Run.objects.get(); print(r.name, r.state)"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tickets", "queued"]


def test_f60_a_dataset_in_use_stays(bench: Bench) -> None:
    run = bench.launch()
    with pytest.raises(ProtectedError):
        bench.version.delete()
    with pytest.raises(ProtectedError):
        bench.base_model.delete()
    assert Run.objects.filter(pk=run.pk).exists()


@postgres_only
def test_f24_postgresql_restarted_amid_a_run(site: Site, bench: Bench) -> None:
    """`pg_ctl stop -m immediate`, away for less than the self-fence: the same attempt goes on, and nothing of it is missing."""
    server = running()
    assert server is not None
    with_production_clocks(site)
    site.start_dispatcher()
    site.start_worker(trainer="--steps 200 --seconds 0.05")
    run = bench.launch()
    until_step(run, 5)
    for _ in range(2):
        server.stop()
        time.sleep(1)
        server.start()
        connection.close()
        wait_for(lambda: awake(run), 20)
        time.sleep(1)
    until(run, State.SUCCEEDED, 60)
    record("database_down", holes(run), "killed twice, away for a second and its recovery each")
    assert (run.attempt, run.infra_failures, holes(run), wrong_in_history(run)) == (1, 0, 0, [])
    assert site.processes["dispatcher"].poll() is None


@postgres_only
def test_f24_postgresql_away_for_longer_than_the_lease(site: Site, bench: Bench) -> None:
    server = running()
    assert server is not None
    site.start_dispatcher()
    site.start_worker(trainer=SLOW)
    run = bench.launch()
    until_step(run, 5)
    (training,) = site.trainings()
    server.stop()
    wait_for(lambda: not training.is_running() or training.status() == "zombie", 8)
    time.sleep(4)
    server.start()
    connection.close()
    running_again(run, 2)
    cancel(run, actor="alice")
    until(run, State.CANCELLED)
    assert (overlaps(site.var, run), stale_writes(site, run), holes(run), wrong_in_history(run)) == (0, 0, 0, [])
    record("overlaps", 0)


def awake(run: Run) -> bool:
    """Whether the database answers this process again."""
    try:
        return Run.objects.filter(pk=run.pk).exists()
    except OperationalError:
        connection.close()
        return False


SKEW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long skew(void) { const char *text = getenv("TEST_CLOCK_SKEW"); return text ? atol(text) : 0; }
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, at);
    if (id == CLOCK_REALTIME) at->tv_sec += skew();
    return code;
}
time_t time(time_t *where) { struct timespec at; clock_gettime(CLOCK_REALTIME, &at); if (where) *where = at.tv_sec; return at.tv_sec; }
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now); at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000; return 0;
}
"""


def clock_of(site: Site, name: str) -> datetime:
    """What a worker's clock said at its first line."""
    found = re.search(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", site.log(name))
    assert found is not None
    return datetime.fromisoformat(found.group(1))


@postgres_only
def test_f26_workers_and_dispatcher_whose_clocks_are_ten_minutes_off(site: Site, bench: Bench, tmp_path: Path) -> None:
    """A worker ahead and one behind, and the reaper ahead: a lease is what the database's clock says."""
    if shutil.which("gcc") is None:
        pytest.skip("no compiler for the library that bends the clock")
    library = tmp_path / "skew.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), "-xc", "-", "-ldl"], input=SKEW.encode(), check=True)
    site.environment["LD_PRELOAD"] = str(library)
    for name, skew in (("dispatcher", "600"), ("train0", "600"), ("train1", "-600")):
        site.environment["TEST_CLOCK_SKEW"] = skew
        if name == "dispatcher":
            site.start_dispatcher()
        else:
            site.start_worker(name, trainer="--steps 160 --seconds 0.05")
    runs = [bench.launch(name=f"run {number}") for number in range(2)]
    for run in runs:
        until(run, State.SUCCEEDED, 60)
        assert (run.attempt, run.infra_failures, holes(run)) == (1, 0, 0)
    owners = set(RunEvent.objects.filter(to_state=State.STARTING).values_list("actor", flat=True))
    assert owners == {"train0@site", "train1@site"}
    assert (clock_of(site, "train0") - clock_of(site, "train1")).total_seconds() > 1000, "the two workers' clocks do differ"
    wait_for(lambda: not OutboxMessage.objects.filter(published_at=None).exists(), 20)


def test_the_database_is_the_one_that_was_asked_for() -> None:
    """The session on PostgreSQL must not fall back to SQLite."""
    server = running()
    assert (connection.vendor == "postgresql") is isinstance(server, Postgres)
    if server:
        assert str(server.port) in database_url()
