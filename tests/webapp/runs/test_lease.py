"""The lease: every move is one conditional UPDATE, and the second to ask finds nothing."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from tests.faults.figures import record
from tests.flow.site import database_url
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs import lease
from webapp.runs.models import Run, RunEvent
from webapp.runs.services.reconcile import reap
from webapp.runs.states import ACTIVE, TRANSITIONS, Desired, State
from webapp.settings.env import ENV, PROJECT
from webapp.work.models import OutboxMessage

LOST = lease.Failure("infra", "The worker was lost.", "Try again.")

RACER = """
import sys, django
django.setup()
from webapp.runs import lease
sys.stdin.readline()
for run_id in sys.argv[1].split(","):
    if lease.claim(run_id, sys.argv[2]):
        print(run_id)
"""


def test_claim_race_of_eight_processes(transactional_db: None, settings: object, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "GRAFT_VAR", tmp_path)
    bench = make_bench()
    runs = [str(bench.launch(name=f"run {number}").id) for number in range(40)]
    monkeypatch.setenv("DATABASE_URL", database_url())
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "webapp.settings.base")
    command = [sys.executable, "-c", RACER, ",".join(runs)]
    racers = [
        subprocess.Popen([*command, f"worker{number}"], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(8)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    claimed = [line for racer in racers for line in racer.communicate()[0].split()]
    assert [racer.returncode for racer in racers] == [0] * 8
    record("claims", len(claimed) - len(set(claimed)), connection.vendor)
    assert sorted(claimed) == sorted(runs)
    assert set(Run.objects.values_list("attempt", flat=True)) == {1}
    assert RunEvent.objects.filter(to_state=State.STARTING).count() == 40


def test_claim_needs_a_queued_run_that_is_wanted(bench: Bench) -> None:
    run = bench.launch()
    Run.objects.filter(pk=run.pk).update(desired=Desired.PAUSE)
    assert lease.claim(run.id, "train0") is None
    Run.objects.filter(pk=run.pk).update(desired=Desired.RUN)
    claimed = lease.claim(run.id, "train0")
    assert claimed is not None
    assert (claimed.state, claimed.attempt, claimed.owner) == (State.STARTING, 1, "train0")
    assert lease.claim(run.id, "train1") is None


def test_lease_is_kept_by_the_clock_of_the_database_to_the_millisecond(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.launch()
    lease.claim(run.id, "train0")
    monkeypatch.setattr(ENV, "lease_seconds", 30.0)
    assert lease.renew(run.id, 1, 7) == Desired.RUN
    now, until, step = Run.objects.values_list(Now(), "lease_expires_at", "last_step").get(pk=run.pk)
    assert step == 7
    assert timedelta(seconds=29) < until - now <= timedelta(seconds=30)
    # The text of a time that SQLite makes and of one that Python makes must compare by value: a second border without a fraction too.
    for seconds, over in ((0.25, False), (-0.25, True)):
        Run.objects.filter(pk=run.pk).update(lease_expires_at=lease.after(seconds))
        assert Run.objects.filter(pk=run.pk, lease_expires_at__lt=Now()).exists() is over
    whole = now.replace(microsecond=0)
    Run.objects.filter(pk=run.pk).update(lease_expires_at=whole)
    assert Run.objects.filter(pk=run.pk, lease_expires_at__lt=whole + timedelta(milliseconds=1)).exists()
    assert not Run.objects.filter(pk=run.pk, lease_expires_at__lt=whole).exists()


def test_stale_attempt_changes_nothing(bench: Bench) -> None:
    run = bench.launch()
    lease.claim(run.id, "train0")
    lease.interrupt(run.id, 1, actor="reaper", detail="", failure=LOST, retries=3)
    lease.claim(run.id, "train1")
    before = Run.objects.filter(pk=run.pk).values().get()
    history = RunEvent.objects.count()
    assert lease.renew(run.id, 1, 99) is None
    assert lease.desired(run.id, 1) is None
    assert not lease.move(run.id, 1, to=State.FAILED, frm=ACTIVE, actor="train0", message="stale")
    assert lease.interrupt(run.id, 1, actor="train0", detail="", failure=LOST, retries=3) is None
    assert Run.objects.filter(pk=run.pk).values().get() == before
    assert RunEvent.objects.count() == history


def test_move_that_the_state_machine_lacks_is_a_mistake(bench: Bench) -> None:
    run = bench.launch()
    with pytest.raises(ValueError, match="no move from queued to succeeded"):
        lease.move(run.id, 0, to=State.SUCCEEDED, frm=(State.QUEUED,), actor="alice")
    assert RunEvent.objects.filter(run=run).count() == 1


def test_move_waits_for_the_wish(bench: Bench) -> None:
    run = bench.launch()
    assert not lease.move(run.id, 0, to=State.PAUSED, frm=(State.QUEUED,), actor="alice", wanted=Desired.PAUSE)
    assert lease.move(run.id, 0, to=State.PAUSED, frm=(State.QUEUED,), actor="alice", wanted=Desired.RUN)


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_reaper_takes_every_active_state_once(bench: Bench, state: State) -> None:
    run = bench.launch()
    lease.claim(run.id, "train0")
    OutboxMessage.objects.all().delete()
    Run.objects.filter(pk=run.pk).update(state=state, lease_expires_at=lease.after(-ENV.reap_grace_seconds + 5))
    assert reap() == 0
    Run.objects.filter(pk=run.pk).update(lease_expires_at=lease.after(-ENV.reap_grace_seconds - 1))
    assert (reap(), reap()) == (1, 0)
    run.refresh_from_db()
    assert (run.state, run.attempt, run.infra_failures, run.owner) == (State.QUEUED, 1, 1, "")
    assert OutboxMessage.objects.filter(subject=run.id, task="runs.train").count() == 1


@pytest.mark.parametrize(
    ("desired", "end"), [(Desired.CANCEL, State.CANCELLED), (Desired.PAUSE, State.PAUSED), (Desired.RUN, State.QUEUED)]
)
def test_reaper_respects_what_people_want(bench: Bench, desired: Desired, end: State) -> None:
    run = bench.launch()
    lease.claim(run.id, "train0")
    Run.objects.filter(pk=run.pk).update(desired=desired, lease_expires_at=lease.after(-ENV.reap_grace_seconds - 1))
    reap()
    run.refresh_from_db()
    assert run.state == end


def test_run_that_keeps_losing_its_workers_fails(bench: Bench) -> None:
    run = bench.launch()
    for _ in range(ENV.infra_retries + 1):
        lease.claim(run.id, "train0")
        Run.objects.filter(pk=run.pk).update(lease_expires_at=lease.after(-ENV.reap_grace_seconds - 1))
        reap()
    run.refresh_from_db()
    assert (run.state, run.failure_code, run.attempt) == (State.FAILED, "infra", ENV.infra_retries + 1)
    assert run.message == f"The worker was lost {ENV.infra_retries + 1} times: no sign of life from train0."


def test_history_is_a_path_of_the_state_machine(bench: Bench) -> None:
    run = bench.launch()
    lease.claim(run.id, "train0")
    lease.interrupt(run.id, 1, actor="reaper", detail="", failure=LOST, retries=3)
    rows = list(RunEvent.objects.filter(run=run).values_list("seq", "from_state", "to_state"))
    assert rows == [(1, "", "queued"), (2, "queued", "starting"), (3, "starting", "interrupted"), (4, "interrupted", "queued")]
    assert all(State(to) in TRANSITIONS[State(frm)] for _seq, frm, to in rows[1:])
