"""A training that runs out of memory goes on in smaller micro-batches, at most four times; then it fails and says what may help."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.faults.invariants import violations
from tests.tiny import make_tiny_model
from tests.webapp.runs.rows import Bench, make_bench
from tests.webapp.runs.test_supervisor import supervise
from webapp.runs import lease, memory
from webapp.runs.memory import Batches
from webapp.runs.models import Record, Run, RunEvent
from webapp.runs.outcome import Outcome
from webapp.runs.services.retry import retry
from webapp.runs.services.specs import for_worker
from webapp.runs.states import State
from webapp.runs.supervisor import Supervisor

pytestmark = pytest.mark.django_db(transaction=True)
SCARCE = (sys.executable, "-m", "tests.webapp.runs.scarce")
ENGINE: dict[str, Any] = {
    "settings": {"rank": 4},
    "evaluation": {"generate": False, "samples": 0, "retention": False},
    "export": {"merge": "none"},
}


@pytest.fixture
def bench(transactional_db: None, settings: Any, tmp_path: Any) -> Bench:
    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    return make_bench(rows=[{"prompt": f"Say {number}: ", "completion": "even " * 20} for number in range(64)])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Batches(8, 2), Batches(4, 4)),
        (Batches(5, 1), Batches(1, 5)),
        (Batches(6, 1), Batches(3, 2)),
        (Batches(7, 2), Batches(2, 7)),
        (Batches(1, 16), None),
        (Batches(2, 4096), None),
        (Batches(8, 2, 1024), Batches(8, 2, 512)),
        (Batches(8, 2, 31), None),
    ],
)
def test_half_the_micro_batch_and_the_same_rows_a_step(before: Batches, after: Batches | None) -> None:
    assert before.halved() == after
    if after is not None:
        assert after.micro_batch * after.gradient_accumulation == before.micro_batch * before.gradient_accumulation


def test_after_so_many_halvings() -> None:
    assert [Batches(32, 1).after(cuts) for cuts in range(3)] == [Batches(32, 1), Batches(16, 2), Batches(8, 4)]
    assert Batches(2, 1).after(4) == Batches(1, 2)


@pytest.mark.parametrize(
    ("phase", "helps"),
    [
        ({"name": "training", "done": 0}, True),
        ({"name": "loading", "done": 12}, True),
        ({"name": "loading", "done": 0}, False),
        ({"name": "evaluating", "done": 4}, False),
        ({"name": "merging", "done": 1}, False),
        ({}, False),
    ],
)
def test_only_what_depends_on_the_micro_batch_is_tried_again_with_less(bench: Bench, phase: dict[str, Any], helps: bool) -> None:
    run = bench.launch()
    lost = Outcome("failed", lease.Failure("cuda_oom", "No memory.", "Less.", 80))
    assert memory.judged(lost, run, phase) == (Outcome("smaller", lost.failure) if helps else lost)
    other = Outcome("failed", lease.Failure("nonfinite", "Not finite.", "Less.", 79))
    assert memory.judged(other, run, phase) == other


def test_four_times_and_no_more(bench: Bench) -> None:
    run = bench.launch(training={"micro_batch": 64, "gradient_accumulation": 1})
    sizes, cuts = [], []
    for _ in range(5):
        sizes.append(for_worker(run).training.micro_batch)
        supervise(run, "--behave", "cuda_oom")
        cuts.append(run.memory_cuts)
    assert (sizes, cuts) == ([64, 32, 16, 8, 4], [1, 2, 3, 4, 4])
    assert (run.state, run.failure_code, run.exit_code, run.infra_failures) == (State.FAILED, "cuda_oom", 80, 0)
    assert run.message.endswith("Its micro-batch had been halved 4 times, down to 4 x 16.")
    assert "gradient checkpointing" in run.remedy
    assert violations([run]) == []
    # What was learned is kept: a further try does not begin with what has never fitted.
    retry(run, actor="alice")
    assert for_worker(run).training.micro_batch == 4


def test_a_child_that_the_kernel_killed_for_its_memory(bench: Bench) -> None:
    run = bench.launch()
    states = [supervise(run, "--behave", "killed").state for _ in range(4)]
    assert states == [State.QUEUED, State.QUEUED, State.QUEUED, State.FAILED]
    assert (run.failure_code, run.exit_code, run.memory_cuts, run.infra_failures) == ("host_oom", -9, 3, 0)
    details = list(RunEvent.objects.filter(run=run, to_state=State.INTERRUPTED).values_list("detail", flat=True))
    assert details == [
        "host_oom: micro-batches of 4 x 4 in place of 8 x 2",
        "host_oom: micro-batches of 2 x 8 in place of 4 x 4",
        "host_oom: micro-batches of 1 x 16 in place of 2 x 8",
    ]


def test_the_page_says_so(bench: Bench) -> None:
    run = supervise(bench.launch(), "--behave", "cuda_oom")
    client = Client()
    client.force_login(bench.user)
    text = client.get(reverse("runs:detail", args=[run.pk])).text
    assert "It ran out of memory, so it is trained in micro-batches of 4 rows in place of 8 rows." in text
    assert "cuda_oom: micro-batches of 4 x 4 in place of 8 x 2" in text


def engine(run: Run, *options: str) -> Run:
    """One attempt of the real engine."""
    claimed = lease.claim(run.pk, "train0")
    assert claimed is not None
    Supervisor(claimed, owner="train0", command=(*SCARCE, *options)).run()
    run.refresh_from_db()
    return run


def told(run: Run, kind: str, attempt: int) -> list[dict[str, Any]]:
    return list(Record.objects.filter(run=run, kind=kind, attempt=attempt).order_by("seq").values_list("data", flat=True))


def test_the_engine_out_of_gpu_memory_goes_on_from_its_checkpoint(bench: Bench) -> None:
    make_tiny_model(bench.base_model.folder)
    training = {"max_steps": 6, "micro_batch": 8, "gradient_accumulation": 1, "precision": "float32", "checkpoint_every_steps": 2}
    run = bench.launch(training=training, **ENGINE)
    assert engine(run, "--gpu-rows", "4").state == State.QUEUED
    (finished,) = told(run, "finished", 1)
    assert (finished["outcome"], finished["code"], finished["step"]) == ("failed", "cuda_oom", 2)
    assert engine(run, "--gpu-rows", "4").state == State.SUCCEEDED
    (plan,) = told(run, "plan", 2)
    found = (plan["start_step"], plan["micro_batch"], plan["gradient_accumulation"], plan["effective_batch"], plan["total_steps"])
    assert found == (2, 4, 2, 8, 6)
    assert [data["step"] for attempt in (1, 2) for data in told(run, "step", attempt)] == [1, 2, 3, 4, 5, 6]
    assert violations([run]) == []
