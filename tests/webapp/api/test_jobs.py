"""Fine-tuning jobs over HTTP, without workers: made, refused, waiting for their files, listed, moved, watched."""

from __future__ import annotations

import time
from typing import Any

import pytest

from jobs.spec import RunSpec
from tests.webapp.api.given import Program, id_of, program
from tests.webapp.cast import Cast
from tests.webapp.files.given import CHAT, PREFERENCE, lines, read_rows, stored
from tests.webapp.runs.rows import make_bench
from webapp.accounts.services.delete_team import delete_team
from webapp.api.models import Job
from webapp.api.services.reconcile import reconcile
from webapp.catalog.models import BaseModel
from webapp.files.models import File, Purpose
from webapp.runs import lease
from webapp.runs.models import Record, Run
from webapp.runs.states import State

MODEL = "acme/Tiny-1"


@pytest.fixture
def base(cast: Cast) -> BaseModel:
    return BaseModel.objects.create(name="Tiny 1", source="hub", repository=MODEL, state="ready", revision="1", licence="Apache-2.0")


@pytest.fixture
def bob(cast: Cast) -> Program:
    return program(cast.team, cast.bob)


@pytest.fixture
def file(cast: Cast, base: BaseModel) -> File:
    return read_rows(stored(cast.team, cast.bob, lines(CHAT)))


def made(bob: Program, file: File, **more: Any) -> dict[str, Any]:
    response = bob.ask("POST", "fine_tuning/jobs", {"model": MODEL, "training_file": id_of(file), **more})
    assert response.status_code == 200, response.content
    return dict(response.json())


def test_a_job_is_a_run_of_the_pages(cast: Cast, bob: Program, file: File, base: BaseModel) -> None:
    hyperparameters = {"n_epochs": 2, "batch_size": 12, "learning_rate_multiplier": 2, "method": "lora", "rank": 4, "max_steps": 7}
    job = made(
        bob, file, suffix="marv", seed=11, metadata={"team": "support"},
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    )  # fmt: skip
    run = Run.objects.get()
    assert job["id"] == f"ftjob-{run.pk.hex}"
    spec = RunSpec.from_json(run.spec)
    assert (spec.training.epochs, spec.training.micro_batch, spec.training.gradient_accumulation, spec.training.max_steps) == (2.0, 6, 2, 7)
    assert (spec.method.id, spec.method.settings["rank"], spec.seed, spec.training.learning_rate) == ("lora", 4, 11, 4e-4)
    assert (run.name, run.team, run.created_by, run.dataset_version) == ("train-marv", cast.team, cast.bob, file.dataset_version)
    assert {name: job[name] for name in ("object", "status", "model", "training_file", "seed", "metadata", "error")} == {
        "object": "fine_tuning.job", "status": "queued", "model": MODEL, "training_file": id_of(file), "seed": 11,
        "metadata": {"team": "support"}, "error": None,
    }  # fmt: skip
    assert {name: job["hyperparameters"][name] for name in ("n_epochs", "batch_size", "learning_rate_multiplier", "method", "rank")} == {
        "n_epochs": 2, "batch_size": 12, "learning_rate_multiplier": 2.0, "method": "lora", "rank": 4,
    }  # fmt: skip
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": job["hyperparameters"]}}
    assert job["graft"]["run"] == str(run.pk)
    assert job["graft"]["url"].endswith(f"/runs/{run.pk}/")
    assert bob.get(f"fine_tuning/jobs/{job['id']}").json() == job


def test_auto_and_nothing_said_are_the_defaults(bob: Program, file: File, base: BaseModel) -> None:
    job = made(bob, file, hyperparameters={"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"})
    own = {name: job["hyperparameters"][name] for name in ("n_epochs", "batch_size", "learning_rate_multiplier", "method")}
    assert own == {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 1.0, "method": "lora"}
    assert made(bob, file)["hyperparameters"] == job["hyperparameters"]


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": "gpt-4.1-nano"}, "model", "model_not_found"),
        ({"training_file": "file-" + "0" * 32}, "training_file", "invalid_file_id"),
        ({"training_file": "nonsense"}, "training_file", "invalid_file_id"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"suffix": "x" * 65}, "suffix", "invalid_value"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "invalid_value"),
        ({"integrations": [{"type": "wandb"}]}, "integrations", "unsupported_value"),
        ({"method": {"type": "dpo"}}, "method.type", "unsupported_method"),
        ({"method": {"type": "reinforcement"}}, "method.type", "unsupported_method"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "invalid_value"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size", "invalid_value"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier", "invalid_value"),
        ({"hyperparameters": {"method": "lorra"}}, "hyperparameters.method", "invalid_value"),
        ({"hyperparameters": {"rnak": 4}}, "hyperparameters.rnak", "unknown_parameter"),
        ({"hyperparameters": {"rank": "four"}}, "hyperparameters.rank", "method_setting"),
        ({"hyperparameters": {"training": 3}}, "hyperparameters.training", "invalid_type"),
        ({"hyperparameters": {"precision": "fp7"}}, "hyperparameters.precision", "spec_bad_value"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_made(bob: Program, file: File, change: dict[str, Any], param: str, code: str) -> None:
    response = bob.ask("POST", "fine_tuning/jobs", {"model": MODEL, "training_file": id_of(file), **change})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (404 if code == "model_not_found" else 400, param, code), error
    assert not Job.objects.exists()
    assert not Run.objects.exists()


def test_missing_fields_and_what_is_no_json_are_named(bob: Program, file: File) -> None:
    error = bob.ask("POST", "fine_tuning/jobs", {"model": MODEL}).json()["error"]
    assert error == {
        "message": "Missing required parameter: 'training_file'.", "type": "invalid_request_error", "param": "training_file",
        "code": "missing_required_parameter",
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {bob.secret}"}
    response = bob.client.post("/v1/fine_tuning/jobs", "{", content_type="application/json", headers=headers)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_job_waits_for_its_file(cast: Cast, bob: Program, base: BaseModel) -> None:
    file = stored(cast.team, cast.bob, lines(CHAT))
    job = made(bob, file, hyperparameters={"n_epochs": 2})
    assert (job["status"], job["hyperparameters"]["n_epochs"], job["graft"]["run"]) == ("validating_files", 2, None)
    reconcile()
    assert not Run.objects.exists()
    read_rows(file)
    reconcile()
    reconcile()
    assert bob.get(f"fine_tuning/jobs/{job['id']}").json()["status"] == "queued"
    assert Run.objects.get().pk.hex == job["id"].removeprefix("ftjob-")


def test_a_file_that_turns_out_bad_fails_the_job_with_its_lines(cast: Cast, bob: Program, base: BaseModel) -> None:
    file = stored(cast.team, cast.bob, lines(CHAT) + b'{"messages": [{"role": "user", "content": "and?"}]}\n')
    job = made(bob, file)
    read_rows(file)
    reconcile()
    job = bob.get(f"fine_tuning/jobs/{job['id']}").json()
    assert (job["status"], job["error"]["code"], job["error"]["param"]) == ("failed", "invalid_training_file", "training_file")
    assert job["error"]["message"].startswith("Line 11: ")
    events = bob.get(f"fine_tuning/jobs/{job['id']}/events").json()["data"]
    assert [(event["level"], event["message"][:9]) for event in events] == [
        ("error", "Line 11: "),
        ("info", "Validatin"),
        ("info", "Created f"),
    ]
    assert not Run.objects.exists()
    again = bob.ask("POST", "fine_tuning/jobs", {"model": MODEL, "training_file": id_of(file)})
    assert (again.status_code, again.json()["error"]["param"]) == (400, "training_file")


def test_files_of_another_purpose_or_for_dpo_are_refused(cast: Cast, bob: Program, base: BaseModel) -> None:
    other = stored(cast.team, cast.bob, b"a", purpose=Purpose.USER_DATA)
    preferences = stored(cast.team, cast.bob, lines(PREFERENCE))
    for file, word in ((other, "purpose"), (preferences, "dpo")):
        response = bob.ask("POST", "fine_tuning/jobs", {"model": MODEL, "training_file": id_of(file)})
        assert response.status_code == 400
        assert word in response.json()["error"]["message"]
    assert not Job.objects.exists()


def test_a_validation_file_gives_rows_that_are_measured(cast: Cast, bob: Program, file: File) -> None:
    validation = read_rows(stored(cast.team, cast.bob, lines(CHAT), name="valid.jsonl"))
    job = made(bob, file, validation_file=id_of(validation))
    assert (job["status"], job["validation_file"]) == ("validating_files", id_of(validation))
    version = Job.objects.get().dataset_version
    assert version is not None
    from webapp.datasets.services.validate import validate

    validate(version.pk)
    reconcile()
    run = Run.objects.select_related("dataset_version").get()
    assert {split: run.dataset_version.rows(split) for split in ("train", "validation")} == {"train": 10, "validation": 10}
    # Jobs with the same files share their rows.
    assert made(bob, file, validation_file=id_of(validation))["status"] == "queued"
    assert Run.objects.filter(dataset_version=version).count() == 2


def test_cancel_pause_and_resume(cast: Cast, bob: Program, file: File, base: BaseModel) -> None:
    job = made(bob, file)["id"]

    def move(what: str) -> tuple[int, str]:
        response = bob.ask("POST", f"fine_tuning/jobs/{job}/{what}")
        body = response.json()
        return response.status_code, body["status"] if "status" in body else body["error"]["code"]

    assert [move(what) for what in ("pause", "pause", "resume", "cancel", "cancel")] == [
        (200, "paused"), (400, "run_state"), (200, "queued"), (200, "cancelled"), (400, "run_state"),
    ]  # fmt: skip
    waiting = made(bob, stored(cast.team, cast.bob, lines(CHAT)))["id"]
    assert bob.ask("POST", f"fine_tuning/jobs/{waiting}/pause").status_code == 400
    assert bob.ask("POST", f"fine_tuning/jobs/{waiting}/cancel").json()["status"] == "cancelled"
    reconcile()
    assert Run.objects.count() == 1


def test_lists_go_on_after_an_id_and_are_filtered_by_metadata(cast: Cast, bob: Program, file: File, base: BaseModel) -> None:
    marks: list[dict[str, str] | None] = [{"team": "a", "x__y": "1"}, None, {"team": "b"}, {"team": "a"}]
    ids = [made(bob, file, **({"metadata": mark} if mark else {}))["id"] for mark in marks]
    # A training from the pages is a job too.
    bench = make_bench("dora")
    bench_run = bench.launch()
    Run.objects.filter(pk=bench_run.pk).update(team=cast.team)
    ids.append(f"ftjob-{bench_run.pk.hex}")

    def found(**query: Any) -> list[str]:
        return [job["id"] for job in bob.get("fine_tuning/jobs", **query).json()["data"]]

    assert found() == ids[::-1]
    first = bob.get("fine_tuning/jobs", limit=2).json()
    assert ([job["id"] for job in first["data"]], first["has_more"], first["last_id"]) == ([ids[4], ids[3]], True, ids[3])
    second = bob.get("fine_tuning/jobs", limit=3, after=ids[3]).json()
    assert ([job["id"] for job in second["data"]], second["has_more"]) == ([ids[2], ids[1], ids[0]], False)
    assert found(**{"metadata[team]": "a"}) == [ids[3], ids[0]]
    assert found(**{"metadata[team]": "a", "metadata[x__y]": "1"}) == [ids[0]]
    assert found(metadata="null") == [ids[4], ids[1]]
    assert bob.get("fine_tuning/jobs", after="ftjob-" + "0" * 32).json()["error"]["param"] == "after"


def test_events_of_all_sources_in_one_order_page_by_page(bob: Program, file: File, base: BaseModel) -> None:
    job = made(bob, file)["id"]
    run = lease.claim(Run.objects.get().pk, "train0")
    assert run is not None
    now = time.time()
    for seq in range(1, 8):
        Record.objects.create(
            run=run, attempt=1, seq=seq, kind="step" if seq < 7 else "checkpoint", step=min(seq, 6), at=now + seq // 2,
            data={"step": min(seq, 6), "loss": 1 / seq},
        )  # fmt: skip
    whole = bob.get(f"fine_tuning/jobs/{job}/events", limit=100).json()
    assert not whole["has_more"]
    assert [event["message"].split(":")[0] for event in whole["data"]][::-1] == [
        "Created fine-tuning job", "Validating training file", "Files validated, moving job to queued state.", "Fine-tuning job started.",
        "Step 1/0", "Step 2/0", "Step 3/0", "Step 4/0", "Step 5/0", "Step 6/0", "Checkpoint created at step 6",
    ]  # fmt: skip
    assert (whole["data"][1]["type"], whole["data"][1]["data"]["train_loss"]) == ("metrics", 1 / 6)
    paged: list[Any] = []
    for _ in range(12):
        after = {"after": paged[-1]["id"]} if paged else {}
        page = bob.get(f"fine_tuning/jobs/{job}/events", limit=2, **after).json()
        paged += page["data"]
        if not page["has_more"]:
            break
    assert paged == whole["data"]
    assert bob.get(f"fine_tuning/jobs/{job}/events", after="ftevent-1").status_code == 400


def test_checkpoints_with_what_was_measured_at_them(bob: Program, file: File, base: BaseModel) -> None:
    job = made(bob, file)["id"]
    run = lease.claim(Run.objects.get().pk, "train0")
    assert run is not None
    rows = [("step", 2, {"loss": 0.5}), ("eval", 2, {"split": "validation", "model": "tuned", "loss": 0.7, "token_accuracy": 0.9}),
            ("checkpoint", 2, {}), ("step", 4, {"loss": 0.4}), ("checkpoint", 4, {})]  # fmt: skip
    for seq, (kind, step, data) in enumerate(rows, 1):
        Record.objects.create(run=run, attempt=1, seq=seq, kind=kind, step=step, at=1e9 + seq, data={"step": step, **data})
    (run.attempt_folder(1) / "checkpoints" / "step-00000004").mkdir(parents=True)
    found = bob.get(f"fine_tuning/jobs/{job}/checkpoints").json()
    assert [(each["step_number"], each["kept"], each["metrics"]["valid_loss"]) for each in found["data"]] == [
        (4, True, None),
        (2, False, 0.7),
    ]
    assert found["data"][0]["fine_tuned_model_checkpoint"] == f"ft:{MODEL}:night::{run.pk.hex}:ckpt-step-4"
    assert found["data"][1]["metrics"] == {"step": 2, "train_loss": 0.5, "valid_loss": 0.7, "valid_mean_token_accuracy": 0.9}
    page = bob.get(f"fine_tuning/jobs/{job}/checkpoints", limit=1).json()
    assert (len(page["data"]), page["has_more"]) == (1, True)
    rest = bob.get(f"fine_tuning/jobs/{job}/checkpoints", after=page["last_id"]).json()
    assert [each["step_number"] for each in rest["data"]] == [2]


def test_ends_are_told(bob: Program, file: File, base: BaseModel) -> None:
    job = made(bob, file)["id"]
    Run.objects.update(
        state=State.FAILED,
        failure_code="host_oom",
        message="It ran out of memory.",
        remedy="Take less.",
        finished_at="2026-11-01T00:00:00Z",
    )
    body = bob.get(f"fine_tuning/jobs/{job}").json()
    assert (body["status"], body["error"]) == ("failed", {"code": "host_oom", "message": "It ran out of memory. Take less.", "param": None})
    Run.objects.update(state=State.SUCCEEDED, attempt=1, summary={"latest": {"tokens": 1234}})
    body = bob.get(f"fine_tuning/jobs/{job}").json()
    assert (body["status"], body["trained_tokens"]) == ("succeeded", 1234)
    assert body["fine_tuned_model"] == f"ft:{MODEL}:night::{job.removeprefix('ftjob-')}"
    assert bob.get(f"files/{body['result_files'][0]}").json()["purpose"] == "fine-tune-results"


def test_jobs_go_with_their_team(cast: Cast, bob: Program, file: File, base: BaseModel) -> None:
    made(bob, file)
    Run.objects.update(state=State.CANCELLED)
    delete_team(team=cast.team, actor=cast.alice)
    assert not Job.objects.exists()
