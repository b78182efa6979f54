"""The checks of the invariants see what they are there to see: a good run is spoilt in one way after another."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.invariants import violations
from tests.webapp.runs.rows import Bench, make_bench
from tests.webapp.runs.test_supervisor import supervise
from webapp.quotas.models import ComputeUse
from webapp.runs import lease
from webapp.runs.models import Artifact, Record, Run, RunEvent
from webapp.runs.states import State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(transactional_db: None, settings: Any, tmp_path: Any) -> Run:
    """A run that was lost once and then succeeded."""
    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    bench: Bench = make_bench()
    run = supervise(bench.launch(), "--behave", "segfault")
    assert violations([run]) == []
    run = supervise(run)
    assert violations([run]) == []
    return run


def zombie(run: Run) -> None:
    event = {"v": 1, "seq": 99, "t": 4e9, "kind": "log", "data": {}}
    with (run.attempt_folder(1) / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def attempt_back(run: Run) -> None:
    RunEvent.objects.filter(run=run, to_state=State.SUCCEEDED).update(attempt=1)


def second_end(run: Run) -> None:
    lease.record(run.pk, to=State.QUEUED, actor="nobody", attempt=2)
    lease.record(run.pk, to=State.CANCELLED, actor="nobody", attempt=2)


def damaged(run: Run) -> None:
    Artifact.objects.get(run=run).file.write_bytes(b"other")


def unpublished(run: Run) -> None:
    Artifact.objects.filter(run=run).delete()


def hole(run: Run) -> None:
    Record.objects.filter(run=run, attempt=1, seq=2).delete()


def last_point(run: Run) -> None:
    Record.objects.filter(run=run, attempt=2).order_by("-seq")[0].delete()


def begun_further_on(run: Run) -> None:
    plan = Record.objects.get(run=run, attempt=2, kind="plan")
    plan.data["start_step"] = 99
    plan.save()
    file = run.attempt_folder(2) / "events.jsonl"
    file.write_text(file.read_text().replace('"start_step":0', '"start_step":99').replace('"start_step": 0', '"start_step": 99'))


def held_for_long(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING, lease_expires_at="2026-01-01T00:00:00Z")


def still_counted(run: Run) -> None:
    ComputeUse.objects.filter(run_id=run.pk, attempt=1).update(ended_at=None)


def left_behind(run: Run) -> None:
    (run.attempt_folder(1) / "checkpoints" / ".tmp-00000003").mkdir(parents=True)


@pytest.mark.parametrize(
    ("spoil", "number"),
    [
        (zombie, "I1"), (attempt_back, "I2"), (second_end, "I3"), (damaged, "I4"), (unpublished, "I4"), (hole, "I5"), (last_point, "I5"),
        (begun_further_on, "I5"), (held_for_long, "I6"), (still_counted, "I7"), (left_behind, "I8"),
    ],
)  # fmt: skip
def test_each_is_seen(run: Run, spoil: Callable[[Run], None], number: str) -> None:
    spoil(run)
    assert number in {wrong.split()[0] for wrong in violations([run])}
