"""The use cases on runs, each with its refusals; a refusal leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now

from jobs.errors import UserError
from jobs.methods.registry import get_method
from jobs.spec import RunSpec
from tests.webapp.runs.rows import Bench, make_bench
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs import lease
from webapp.runs.models import Run, RunEvent, Worker
from webapp.runs.services.cancel import cancel
from webapp.runs.services.delete import delete
from webapp.runs.services.pause import pause
from webapp.runs.services.rename import rename
from webapp.runs.services.resume import resume
from webapp.runs.services.retry import retry
from webapp.runs.services.specs import for_worker
from webapp.runs.states import ACTIVE, Desired, State
from webapp.work.models import OutboxMessage

CPU = {"kind": "cpu", "name": "a CPU", "memory_bytes": 1, "threads": 2, "bfloat16": False}


def test_launch_writes_run_history_and_doorbell(bench: Bench) -> None:
    run = bench.launch(settings={"rank": 8}, training={"epochs": 1.0}, seed=7)
    assert (run.state, run.desired, run.attempt, run.queue) == (State.QUEUED, Desired.RUN, 0, "train")
    assert list(RunEvent.objects.values_list("to_state", "actor")) == [("queued", "alice")]
    assert list(OutboxMessage.objects.values_list("task", "subject", "queue")) == [("runs.train", run.id, "train")]
    assert run.spec["method"]["settings"] == get_method("lora").resolve({"rank": 8})
    assert run.spec["seed"] == 7
    assert run.code_version


def test_stored_spec_names_no_path_and_the_workers_does(bench: Bench, tmp_path: Path) -> None:
    run = bench.launch()
    assert str(tmp_path) not in str(run.spec)
    spec = for_worker(run)
    assert spec.model.path == str(run.base_model.folder)
    assert Path(spec.data.train).read_text() == '{"prompt": "a", "completion": "b"}\n'
    assert RunSpec.from_json(spec.to_json()) == spec


def test_validation_share_counts_only_without_validation_rows(bench: Bench) -> None:
    assert bench.launch(validation_share=0.1).spec["data"]["validation_share"] == 0.1
    bench.version.manifest["validation"] = {"file": "validation.jsonl", "rows": 1}
    data = bench.launch(validation_share=0.1).spec["data"]
    assert (data["validation"], data["validation_share"]) == ("validation.jsonl", 0.0)


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"name": "  "}, "name", "run_name"),
        ({"name": "x" * 121}, "name", "run_name"),
        ({"method": "magic"}, "method.id", "method_unknown"),
        ({"settings": {"rank": 0}}, "rank", "method_setting"),
        ({"settings": {"width": 3}}, "width", "method_setting"),
        ({"training": {"epochs": -1.0}}, "training.epochs", "spec_bad_value"),
        ({"training": {"output_dir": "/etc"}}, "training.output_dir", "spec_unknown_field"),
        ({"training": {"learning_rate": "__import__('os')"}}, "training.learning_rate", "spec_bad_value"),
        (
            {"method": "prefix_tuning", "settings": {}, "training": {"gradient_checkpointing": True}},
            "training.gradient_checkpointing",
            "checkpointing_cannot",
        ),
        ({"seed": -1}, "seed", "spec_bad_value"),
    ],
)
def test_refused_launch_names_the_field_and_writes_nothing(bench: Bench, changes: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(UserError) as refusal:
        bench.launch(**changes)
    assert (refusal.value.where["field"], refusal.value.code) == (field, code)
    assert not Run.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_launch_on_what_is_not_ready_or_not_ours_is_refused(bench: Bench) -> None:
    other = make_bench("mallory")
    theirs = BaseModel.objects.create(team=other.team, name="Theirs", source="hub", state="ready")
    DatasetVersion.objects.filter(pk=other.version.pk).update(state="ready")
    fetching = BaseModel.objects.create(name="Late", source="hub", state="fetching")
    draft = DatasetVersion.objects.get(pk=bench.version.pk)
    draft.state = DatasetVersion.State.DRAFT
    for changes in ({"dataset_version": other.version}, {"base_model": theirs}, {"base_model": fetching}, {"dataset_version": draft}):
        with pytest.raises(UserError):
            bench.launch(**changes)
    assert not Run.objects.exists()


def test_what_no_known_worker_can_do_is_refused_before_launch(bench: Bench) -> None:
    gpu = {**CPU, "kind": "cuda", "name": "Old GPU"}
    bench.launch(training={"precision": "bfloat16"})
    worker = Worker.objects.create(name="train0", queue="train", device=gpu, seen_at=Now())
    with pytest.raises(UserError) as refusal:
        bench.launch(training={"precision": "bfloat16"})
    assert refusal.value.code == "device_cannot"
    assert refusal.value.where == {"field": "training.precision"}
    Worker.objects.create(name="train1", queue="train", device={**gpu, "bfloat16": True}, seen_at=Now())
    bench.launch(training={"precision": "bfloat16"})
    Worker.objects.exclude(pk=worker.pk).delete()
    Worker.objects.update(seen_at=lease.after(-3600))
    bench.launch(training={"precision": "bfloat16"})
    assert Run.objects.count() == 3


def test_cancel_of_a_queued_run_is_immediate(bench: Bench) -> None:
    run = cancel(bench.launch(), actor="alice")
    assert (run.state, run.desired) == (State.CANCELLED, Desired.CANCEL)
    assert run.finished_at is not None
    assert lease.claim(run.id, "train0") is None
    with pytest.raises(UserError, match="Cancelling is not possible: the run is cancelled"):
        cancel(run, actor="alice")
    assert RunEvent.objects.filter(run=run, to_state=State.CANCELLED).count() == 1


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_cancel_of_an_active_run_is_a_wish(bench: Bench, state: State) -> None:
    run = bench.launch()
    lease.claim(run.id, "train0")
    Run.objects.filter(pk=run.pk).update(state=state)
    cancel(run, actor="alice")
    assert (run.state, run.desired) == (state, Desired.CANCEL)
    # Nobody takes a cancel back.
    assert pause(run, actor="bob").desired == Desired.CANCEL
    assert resume(run, actor="bob").desired == Desired.CANCEL
    assert list(RunEvent.objects.filter(run=run).values_list("detail", flat=True))[-1] == "asked: cancel"


def test_pause_resume_and_retry(bench: Bench) -> None:
    run = pause(bench.launch(), actor="alice")
    assert (run.state, run.desired) == (State.PAUSED, Desired.PAUSE)
    OutboxMessage.objects.all().delete()
    run = resume(run, actor="alice")
    assert (run.state, run.desired) == (State.QUEUED, Desired.RUN)
    assert OutboxMessage.objects.filter(subject=run.id).count() == 1
    with pytest.raises(UserError, match="the run is queued"):
        retry(run, actor="alice")
    lease.claim(run.id, "train0")
    fields = lease.Failure("host_oom", "no memory", "less", -9).fields()
    lease.move(run.id, 1, to=State.FAILED, frm=ACTIVE, actor="train0", infra_failures=3, **fields)
    run = retry(run, actor="alice")
    assert (run.state, run.attempt, run.infra_failures, run.failure_code, run.message, run.exit_code) == (State.QUEUED, 1, 0, "", "", None)
    assert run.finished_at is None
    claimed = lease.claim(run.id, "train0")
    assert claimed is not None
    assert claimed.attempt == 2


def test_rename_and_delete(bench: Bench, django_capture_on_commit_callbacks: Any) -> None:
    run = rename(bench.launch(), " better ")
    assert run.name == "better"
    with pytest.raises(UserError, match="needs a name"):
        rename(run, "")
    with pytest.raises(UserError, match="Deleting is not possible: the run is queued"):
        delete(run, actor="alice")
    run.attempt_folder(1).mkdir(parents=True)
    cancel(run, actor="alice")
    folder = run.folder
    with django_capture_on_commit_callbacks(execute=True):
        delete(run, actor="alice")
    assert not Run.objects.exists()
    assert not folder.exists()
