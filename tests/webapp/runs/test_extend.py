"""Finishing a training early and extending one: the wishes, what the supervisor makes of them, and a real training that goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.errors import UserError
from jobs.training.schedule import rate_factor, warmup_steps
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench
from tests.webapp.runs.test_supervisor import Aside, aside, clocks, command, history, supervise  # noqa: F401 - fixtures
from webapp.runs import lease
from webapp.runs.models import Artifact, Record, Run
from webapp.runs.services.extend import extend, extension
from webapp.runs.services.finish import finish
from webapp.runs.services.pause import pause
from webapp.runs.services.resume import resume
from webapp.runs.services.status import actions
from webapp.runs.states import Desired, State
from webapp.runs.supervisor import Supervisor

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def bench(transactional_db: None, settings: Any, tmp_path: Any) -> Bench:
    from tests.webapp.runs.rows import make_bench

    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    return make_bench()


def test_finish_ends_the_training_early_and_publishes(bench: Bench, aside: Callable[..., Aside]) -> None:  # noqa: F811
    run = bench.launch()
    first = aside(run, "--steps", "400", "--seconds", "0.05")
    first.until_step(2)
    run.refresh_from_db()
    assert finish(run, actor="alice").desired == Desired.FINISH
    # What is asked for is not offered again, and neither a pause nor a resume takes it back.
    assert not actions(run)["finish"]
    assert resume(run, actor="alice").desired == Desired.FINISH
    assert first.end().state == State.SUCCEEDED
    assert 2 <= run.last_step == run.last_checkpoint_step < 400
    assert Artifact.objects.get(run=run).kind == "adapter"
    assert "stopping" not in history(run)


def test_a_running_run_that_is_extended_goes_on_in_a_new_attempt(bench: Bench, aside: Callable[..., Aside]) -> None:  # noqa: F811
    run = bench.launch(training={"epochs": 3})
    first = aside(run, "--steps", "400", "--seconds", "0.05")
    first.until_step(2)
    run.refresh_from_db()
    queued_at = run.queued_at
    assert extend(run, epochs=2, actor="alice").desired == Desired.EXTEND
    assert not actions(run)["extend"]
    assert first.end().state == State.QUEUED
    assert (run.desired, run.queued_at, run.spec["training"]["epochs"]) == (Desired.RUN, queued_at, 5)
    assert run.history.filter(actor="alice", detail="extended by 2 epochs: from 3 to 5").count() == 1
    stopped_at = run.last_step
    assert supervise(run, "--steps", str(stopped_at + 3)).state == State.SUCCEEDED
    assert run.attempt == 2
    assert list(Record.objects.filter(run=run, kind="step", attempt=2).values_list("step", flat=True)) == [
        stopped_at + 1, stopped_at + 2, stopped_at + 3,
    ]  # fmt: skip


def test_an_extension_that_comes_too_late_to_stop_the_training_is_done_after_it(bench: Bench) -> None:
    run = bench.launch()
    claimed = lease.claim(run.id, "train0")
    assert claimed is not None
    Run.objects.filter(pk=run.pk).update(desired=Desired.EXTEND)
    supervisor = Supervisor(claimed, owner="train0", command=command("--steps", "1", "--seconds", "0"))
    supervisor.run()
    run.refresh_from_db()
    assert (run.state, run.desired) == (State.QUEUED, Desired.RUN)


def test_a_finished_run_is_extended_from_where_it_ended(bench: Bench) -> None:
    run = stories.finished(bench.launch(training={"epochs": 3, "warmup_share": 0.1, "learning_rate": 2e-4}), total_steps=30)
    found = extension(run, 1)
    # 10 steps an epoch: 30 done, 10 more, the rate at the 31st of 40.
    share = rate_factor(30, total_steps=40, warmup=warmup_steps(40, 0.1), kind="cosine")
    assert (found.epochs, found.total_steps) == (4, 40)
    assert found.rate_after == pytest.approx(2e-4 * share)
    assert found.rate_before == pytest.approx(run.summary["latest"]["learning_rate"])
    extend(run, epochs=1, actor="alice")
    assert (run.state, run.desired, run.spec["training"]["epochs"], run.finished_at) == (State.QUEUED, Desired.RUN, 4, None)
    # What it left the first time is still there to download.
    assert Artifact.objects.filter(run=run).count() == 2


def test_a_run_that_ended_early_is_extended_from_the_epoch_that_it_reached(bench: Bench) -> None:
    run = stories.finished(bench.launch(training={"epochs": 3}), total_steps=30)
    Run.objects.filter(pk=run.pk).update(last_step=15)
    run.refresh_from_db()
    assert (extension(run, 1).epochs, extension(run, 1).total_steps) == (2.5, 25)


def test_a_limit_of_steps_is_raised_with_the_epochs(bench: Bench) -> None:
    run = stories.finished(bench.launch(training={"epochs": 100, "max_steps": 30}), total_steps=30)
    found = extension(run, 0.5)
    assert (found.max_steps, found.total_steps) == (35, 35)
    waiting = bench.launch(training={"epochs": 100, "max_steps": 30})
    with pytest.raises(UserError, match="known only when it has begun"):
        extend(waiting, epochs=1, actor="alice")


def test_what_waits_is_extended_where_it_is(bench: Bench) -> None:
    run = bench.launch(training={"epochs": 1})
    assert extend(run, epochs=0.5, actor="alice").state == State.QUEUED
    pause(run, actor="alice")
    assert extend(run, epochs=0.5, actor="alice").state == State.PAUSED
    assert run.spec["training"]["epochs"] == 2
    assert (run.attempt, run.desired) == (0, Desired.PAUSE)


@pytest.mark.parametrize("epochs", [0.0, -1.0, 1000.0, float("nan")])
def test_a_senseless_number_changes_nothing(bench: Bench, epochs: float) -> None:
    run = bench.launch(training={"epochs": 3})
    with pytest.raises(UserError, match="epochs"):
        extend(run, epochs=epochs, actor="alice")
    run.refresh_from_db()
    assert run.spec["training"]["epochs"] == 3


def test_what_cannot_be_extended_or_finished_is_refused(bench: Bench) -> None:
    failed, adaptive = stories.failed(bench.launch()), bench.launch(method="adalora")
    for run in (failed, adaptive):
        with pytest.raises(UserError, match="Extending is not possible"):
            extend(run, epochs=1, actor="alice")
    with pytest.raises(UserError, match="Finishing is not possible"):
        finish(failed, actor="alice")


@pytest.mark.parametrize(("desired", "then"), [(Desired.FINISH, Desired.FINISH), (Desired.EXTEND, Desired.RUN)])
def test_a_lost_worker_loses_no_wish(bench: Bench, desired: Desired, then: Desired) -> None:
    run = bench.launch()
    claimed = lease.claim(run.id, "train0")
    assert claimed is not None
    Run.objects.filter(pk=run.pk).update(desired=desired)
    failure = lease.Failure("infra", "lost", "")
    assert lease.interrupt(run.pk, 1, actor="reaper", detail="", failure=failure, retries=3) == State.QUEUED
    run.refresh_from_db()
    assert run.desired == then
    assert lease.claim(run.id, "train1") is not None
