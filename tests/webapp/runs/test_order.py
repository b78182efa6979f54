"""Whose turn it is: priority, fairness between teams, a team's own order; and that a claim keeps to it, to draining and to quotas."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db.models.functions import Now

from jobs.errors import UserError
from tests.webapp.runs.rows import Bench, make_bench
from webapp.quotas.models import ComputeUse, Quota
from webapp.quotas.services.limits import Hold
from webapp.runs import lease
from webapp.runs.models import Run, RunEvent, Worker
from webapp.runs.order import Turn, Waiting, fair, places, turns
from webapp.runs.priorities import Priority
from webapp.runs.services.cancel import cancel
from webapp.runs.services.claim_next import claim_next
from webapp.runs.services.drain import drain
from webapp.runs.services.reconcile import reap, reconcile, ring_again
from webapp.runs.services.reorder import set_priority, shift
from webapp.runs.states import State
from webapp.runs.workers import Machine, starting_times
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage

TEAMS = [UUID(int=number) for number in range(4)]
MORNING = datetime(2026, 11, 23, 8, tzinfo=UTC)


@pytest.fixture
def other(bench: Bench) -> Bench:
    return make_bench("charlie")


def waiting(team: int, minute: int, priority: Priority = Priority.NORMAL, place: int = 0) -> Waiting:
    return Waiting(uuid4(), TEAMS[team], priority, place, MORNING + timedelta(minutes=minute))


def order_of(*runs: Waiting, running: dict[int, int] | None = None) -> list[int]:
    """The indices of `runs` in their turns."""
    found = fair(runs, Counter({TEAMS[team]: count for team, count in (running or {}).items()}))
    return [runs.index(each) for each in found]


def worker(name: str = "train0", **fields: Any) -> Worker:
    return Worker.objects.create(**{"name": name, "queue": "train", "seen_at": Now(), **fields})


def test_who_waits_longest_goes_first_within_a_team() -> None:
    assert order_of(waiting(0, 2), waiting(0, 1), waiting(0, 3)) == [1, 0, 2]


def test_priority_goes_before_everything_else() -> None:
    runs = (waiting(0, 1, Priority.LOW), waiting(0, 2), waiting(1, 3, Priority.HIGH), waiting(1, 4))
    assert order_of(*runs, running={1: 9}) == [2, 1, 3, 0]


def test_teams_take_turns() -> None:
    many = [waiting(0, minute) for minute in range(4)]
    assert order_of(*many, waiting(1, 10), waiting(1, 11), waiting(2, 12)) == [0, 4, 6, 1, 5, 2, 3]


def test_a_team_with_runs_under_way_waits_for_those_with_fewer() -> None:
    assert order_of(waiting(0, 0), waiting(0, 1), waiting(1, 5), waiting(1, 6), running={0: 2}) == [2, 3, 0, 1]


def test_a_place_counts_within_the_team_alone() -> None:
    assert order_of(waiting(0, 0), waiting(0, 3, place=-1), waiting(1, 2)) == [2, 1, 0]


def test_the_counts_that_are_given_stay_as_they_are() -> None:
    running = Counter({TEAMS[0]: 1})
    fair([waiting(0, 0), waiting(1, 1)], running)
    assert running == {TEAMS[0]: 1}


def test_a_doorbell_claims_the_run_whose_turn_it_is(bench: Bench, other: Bench) -> None:
    low, first, second, high = (bench.launch(name=name) for name in ("low", "first", "second", "high"))
    theirs = other.launch(name="theirs")
    set_priority(low, Priority.LOW, actor=bench.user)
    set_priority(high, Priority.HIGH, actor=bench.user)
    expected = [high, theirs, first, second, low]
    assert list(places("train")) == [run.id for run in expected]
    assert places("train")[high.id] == 1
    # Alice's team has one under way after the first claim, so Charlie's is next; then both have one, and who waits longest.
    claimed = [claim_next("train", f"train{number}") for number in range(6)]
    assert [run.id if run else None for run in claimed] == [*(run.id for run in expected), None]


def test_no_run_of_another_queue_is_claimed(bench: Bench) -> None:
    run = bench.launch()
    Run.objects.filter(pk=run.pk).update(queue="large")
    assert claim_next("train", "train0") is None
    assert turns("large") == [Turn(run.id, bench.team.id)]


def test_up_down_and_top(bench: Bench, other: Bench) -> None:
    runs = [bench.launch(name=name) for name in "abc"]
    urgent, theirs = bench.launch(name="urgent"), other.launch(name="theirs")
    set_priority(urgent, Priority.HIGH, actor=bench.user)

    def names() -> str:
        line = [Run.objects.get(pk=turn.run_id) for turn in turns("train")]
        return "".join(run.name for run in line if run.priority == Priority.NORMAL and run.team_id == bench.team.id)

    for run, direction, after in [
        (0, "up", "abc"),
        (2, "top", "cab"),
        (0, "down", "cba"),
        (0, "down", "cba"),
        (0, "up", "cab"),
        (1, "top", "bca"),
    ]:
        shift(Run.objects.get(pk=runs[run].pk), direction, actor=bench.user)  # type: ignore[arg-type]
        assert names() == after
    theirs.refresh_from_db()
    assert theirs.place == 0
    # Whoever comes later, or comes back, stands at the end of the line.
    bench.launch(name="d")
    assert names() == "bcad"
    lease.claim(runs[1].id, "train0")
    lease.interrupt(runs[1].id, 1, actor="test", detail="", failure=lease.Failure("infra", "", ""), retries=3)
    assert names() == "cadb"


def test_only_waiting_runs_can_be_ordered(bench: Bench) -> None:
    run = bench.launch()
    claim_next("train", "train0")
    run.refresh_from_db()
    for action in (lambda: shift(run, "up", actor=bench.user), lambda: set_priority(run, Priority.HIGH, actor=bench.user)):
        with pytest.raises(UserError, match="the run is starting"):
            action()
    run.refresh_from_db()
    assert (run.place, run.priority) == (0, Priority.NORMAL)


def test_a_draining_worker_claims_nothing_and_another_does(bench: Bench) -> None:
    run = bench.launch()
    draining, _free = worker("train0"), worker("train1")
    drain(draining, draining=True, actor=bench.user, team=bench.team)
    assert claim_next("train", "train0") is None
    run.refresh_from_db()
    assert (run.state, run.attempt) == (State.QUEUED, 0)
    assert RunEvent.objects.filter(run=run).count() == 1
    taken = claim_next("train", "train1")
    assert taken is not None
    assert taken.id == run.id
    bench.launch(name="next")
    drain(draining, draining=False, actor=bench.user, team=bench.team)
    assert claim_next("train", "train0") is not None


def test_a_draining_worker_is_remembered_and_rung_for_no_more(bench: Bench) -> None:
    bench.launch()
    OutboxMessage.objects.update(created_at=lease.after(-ENV.doorbell_repeat_seconds - 1), published_at=Now())
    worker("train0", draining=True)
    worker("train1", draining=True, seen_at=lease.after(-ENV.worker_forget_seconds - 1))
    assert ring_again() == 0
    reconcile()
    assert Worker.objects.filter(draining=True).count() == 2


def test_a_team_at_its_limit_of_running_runs_lets_others_go_first(bench: Bench, other: Bench) -> None:
    runs = [bench.launch(name=name) for name in "abc"]
    Quota.objects.create(team=bench.team, running_runs=1)
    taken = claim_next("train", "train0")
    assert taken is not None
    assert taken.id == runs[0].id
    theirs = other.launch()
    set_priority(runs[1], Priority.HIGH, actor=bench.user)
    line = turns("train")
    assert [turn.run_id for turn in line] == [theirs.id, runs[1].id, runs[2].id]
    assert [(turn.hold.kind, turn.hold.used, turn.hold.limit) if turn.hold else None for turn in line] == [
        None,
        ("running", 1, 1),
        ("running", 1, 1),
    ]
    assert [run.id if run else None for run in (claim_next("train", "train1"), claim_next("train", "train2"))] == [theirs.id, None]
    # The place is free again when the run has ended, however it ended.
    cancel(runs[0], actor="alice")
    lease.move(runs[0].id, 1, to=State.FAILED, frm=(State.STARTING,), actor="train0")
    following = claim_next("train", "train0")
    assert following is not None
    assert following.id == runs[1].id


def test_a_team_without_hours_left_starts_nothing(bench: Bench) -> None:
    bench.launch()
    quota = Quota.objects.create(team=bench.team, compute_hours=0)
    assert turns("train")[0].hold == Hold("hours", 0.0, 0.0)
    assert claim_next("train", "train0") is None
    quota.compute_hours = 0.5
    quota.save()
    assert claim_next("train", "train0") is not None


def test_the_ledger_is_opened_and_closed_with_the_lease(bench: Bench) -> None:
    run = bench.launch()
    worker(device={"kind": "cuda", "count": 2})
    claim_next("train", "train0")
    assert list(ComputeUse.objects.values_list("run_id", "attempt", "device", "devices", "ended_at")) == [(run.id, 1, "cuda", 2, None)]
    Run.objects.update(lease_expires_at=lease.after(-ENV.reap_grace_seconds - 1))
    assert reap() == 1
    assert ComputeUse.objects.filter(ended_at=None).count() == 0
    claim_next("train", "train0")
    assert list(ComputeUse.objects.filter(ended_at=None).values_list("attempt", flat=True)) == [2]


def machine(state: str = "busy", *, busy: bool = True, eta: float | None = None) -> Machine:
    return Machine(Worker(), state, busy, None, 0.0, eta, 0.0, None, None)


def test_starting_times_are_those_that_are_known() -> None:
    line = [Turn(UUID(int=number), TEAMS[0]) for number in range(4)]
    machines = [
        machine(eta=50.0),
        machine(eta=None),
        machine("idle", busy=False),
        machine("draining", eta=1.0),
        machine("lost", eta=2.0),
        machine(eta=20.0),
    ]
    assert starting_times(machines, line) == {UUID(int=0): 0.0, UUID(int=1): 20.0, UUID(int=2): 50.0}
