"""What the page of a run says besides its charts: the log, the settings, remedies, marks; and the copy of its columns."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from benchmarks.ui import long_run
from jobs.spec import RunSpec
from tests.tiny import make_tiny_model
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench
from webapp.core.formats import format_bytes
from webapp.runs.models import Record, Run, Worker
from webapp.runs.page import samples
from webapp.runs.remedies import data_link, remedies, shortage
from webapp.runs.run_log import every_line, last_words, log
from webapp.runs.services import points
from webapp.runs.services.estimating import takes
from webapp.runs.services.expected import expected
from webapp.runs.services.series import series
from webapp.runs.settings_shown import configuration
from webapp.runs.states import State


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


def test_marks_lie_where_it_was_paused_resumed_and_saved(bench: Bench) -> None:
    run = bench.launch()
    stories.Story(run, total_steps=20).begin().steps(1, 8).tell(State.PAUSED)
    stories.Story(run, 2, total_steps=20).begin(6).steps(7, 12).tell(State.PAUSED)

    steps = [(mark["kind"], mark["step"]) for mark in series(run)["marks"]]
    tokens = [mark["x"] for mark in series(run, x="tokens")["marks"]]

    # The checkpoint of step 8 was undone and written again.
    saved = [("checkpoint", step) for step in (2, 4, 6)]
    assert steps == [*saved, ("pause", 6), ("resume", 6), ("checkpoint", 8), ("checkpoint", 10), ("checkpoint", 12), ("pause", 12)]
    assert tokens == [96 * step for _, step in steps]


def test_a_long_run_is_read_from_its_copy_and_goes_on_from_there(bench: Bench, django_assert_num_queries: Any) -> None:
    run = long_run.record(bench.launch(), 6000)
    points.forget()
    whole = series(run, ["loss"])
    Record.objects.filter(run=run, kind="step").update(data={})
    points.forget()
    assert series(run, ["loss"]) == whole
    # What is told after the copy is added from the archive.
    data = {"step": 6001, "epoch": 3.1, "loss": 0.5, "tokens": 1, "elapsed_seconds": 9e6}
    Record.objects.create(run=run, attempt=1, seq=10**6, kind="step", step=6001, at=0.0, data=data)
    assert series(run, ["loss"])["points"] == 6001
    # A copy that cannot be read is passed over.
    points.forget()
    next(run.folder.glob("curves-*.npy")).write_bytes(b"damaged")
    assert series(run, ["loss"])["points"] == 6001


def test_a_short_run_needs_no_copy(bench: Bench) -> None:
    run = stories.finished(bench.launch(), 20)
    points.keep(run)
    assert not list(run.folder.glob("curves-*"))


def test_a_gpu_has_lines_of_its_own(bench: Bench) -> None:
    run = long_run.record(bench.launch(), 100, keep=False)
    body = series(run)
    assert {"utilisation", "celsius", "allocated_bytes", "device_used_bytes"} <= set(body["series"])
    assert "resident_bytes" not in body["series"]
    assert np.all(np.array(body["series"]["utilisation"]["mean"]) <= 1)
    assert body["nonfinite_x"] == [50]


def test_the_log_is_searched_whole_and_downloaded(bench: Bench, alice: Client) -> None:
    run = stories.failed(bench.launch())
    assert [line.words for line in log(run, "STEP 100")["lines"]] == ["Checkpoint of step 100, 58.0\u202fMB"]
    assert log(run, "nowhere")["lines"] == []
    assert log(run)["log_found"] == len(list(every_line(run)))
    text = b"".join(alice.get(reverse("runs:log", args=[run.pk])).streaming_content).decode()  # type: ignore[attr-defined]
    assert text.count("\n") == log(run)["log_found"]
    assert "Checkpoint of step 100" in text
    words = last_words(run)
    assert words is not None
    assert words.words == "Adapter on 210 linear layers, rank 16"


def test_the_settings_that_differ_come_first(bench: Bench, alice: Client) -> None:
    run = bench.launch(training={"epochs": 5.0}, settings={"rank": 4})
    shown = configuration(run)
    assert [(each.path, each.value, each.default) for each in shown["settings"] if each.differs] == [
        ("method.rank", "4", "16"), ("training.epochs", "5", "3"), ("data.validation_share", "0", "0.05"),
    ]  # fmt: skip
    assert shown["differing"] == 3
    assert all(each.differs for each in shown["settings"][:3])
    assert alice.get(reverse("runs:spec", args=[run.pk])).json() == run.spec


def failed_by(run: Run, code: str) -> Run:
    Run.objects.filter(pk=run.pk).update(state=State.FAILED, failure_code=code)
    run.refresh_from_db()
    return run


def test_too_little_memory_is_met_by_smaller_pieces(bench: Bench) -> None:
    run = failed_by(bench.launch(training={"micro_batch": 8, "gradient_accumulation": 2}), "cuda_oom")
    first = parse_qs(urlparse(remedies(run)[0].url).query)
    assert first == {
        "clone": [str(run.pk)], "training_micro_batch": ["4"], "training_gradient_accumulation": ["4"],
        "training_gradient_checkpointing": ["True"],
    }  # fmt: skip
    least = failed_by(bench.launch(training={"micro_batch": 1, "gradient_checkpointing": True, "max_length": 512}), "host_oom")
    assert [parse_qs(urlparse(each.url).query)["training_max_length"] for each in remedies(least)] == [["256"]]


@pytest.fixture
def measured(bench: Bench) -> Bench:
    """The bench with a real tiny model, lengths in the report, and a worker of 8 GiB."""
    make_tiny_model(bench.base_model.folder)
    bench.version.report = {"characters": {"min": 40, "median": 400, "mean": 400, "p95": 1600, "max": 4000, "total": 4000}}
    bench.version.manifest["train"]["rows"] = 5000
    bench.version.save()
    Worker.objects.create(name="seen", queue="train", seen_at=now(), device={**stories.DEVICE, "memory_bytes": 8 * 2**30})
    return bench


def test_each_remedy_says_what_the_estimate_becomes(measured: Bench, alice: Client) -> None:
    run = failed_by(measured.launch(training={"micro_batch": 64, "gradient_accumulation": 1}), "host_oom")
    panel = takes(measured.team, RunSpec.from_json(run.spec), dataset_version=measured.version, base_model=measured.base_model)
    short = shortage(run)
    assert short is not None
    assert (short.peak_bytes, short.usable_bytes) == (panel.found.memory.peak, panel.usable_bytes)
    found = remedies(run)
    assert len(found) == 3
    for remedy in found:
        # The form that the link leads to counts the same.
        changed = {name: values[0] for name, values in parse_qs(urlparse(remedy.url).query).items() if name != "clone"}
        training = {name.removeprefix("training_"): json.loads(value.lower()) for name, value in changed.items()}
        spec = RunSpec.from_json({**run.spec, "training": {**run.spec["training"], **training}})
        there = takes(measured.team, spec, dataset_version=measured.version, base_model=measured.base_model)
        assert (remedy.peak_bytes, remedy.fits) == (there.found.memory.peak, there.found.fits)
        assert remedy.peak_bytes is not None
        assert remedy.peak_bytes < short.peak_bytes
    text = alice.get(reverse("runs:detail", args=[run.pk])).text
    assert f"Its estimate was {format_bytes(short.peak_bytes)}; of this device a run may take 7.90\u202fGB." in text
    assert text.count(format_bytes(found[0].peak_bytes)) >= 1


def test_where_nothing_is_known_a_remedy_stands_without_an_estimate(bench: Bench) -> None:
    run = failed_by(bench.launch(training={"micro_batch": 8}), "cuda_oom")
    assert shortage(run) is None
    assert {remedy.peak_bytes for remedy in remedies(run)} == {None}


def test_the_memory_chart_knows_limit_and_estimate_of_the_device_that_the_run_came_to(measured: Bench, alice: Client) -> None:
    run = stories.running(measured.launch())
    known = expected(run)
    assert known is not None
    memory = known.found.memory
    assert (known.training_bytes, known.found.device_bytes) == (memory.training + memory.runtime, stories.DEVICE["memory_bytes"])
    page = alice.get(reverse("runs:detail", args=[run.pk])).text
    assert f'data-limit-bytes="16000000000" data-estimate-bytes="{known.training_bytes}"' in page
    Worker.objects.update(device={**stories.DEVICE, "name": "another"})
    assert expected(run) is None
    assert 'data-estimate-bytes="0"' in alice.get(reverse("runs:detail", args=[run.pk])).text


def test_numbers_that_are_not_finite_are_met_by_a_lower_rate(bench: Bench) -> None:
    run = failed_by(bench.launch(training={"learning_rate": 3e-3}), "nonfinite")
    assert [parse_qs(urlparse(each.url).query).get("training_learning_rate") for each in remedies(run)] == [["0.001"], None]
    assert not remedies(failed_by(bench.launch(), "stalled"))
    assert not remedies(bench.launch())


def test_a_place_in_the_data_is_linked(bench: Bench) -> None:
    run = bench.launch()
    assert data_link(run, {"line": 7}) == reverse("datasets:version", args=[bench.version.pk])
    assert data_link(run, {"field": "training.learning_rate"}) == ""


def test_samples_stand_in_the_order_of_their_steps(bench: Bench) -> None:
    run = bench.launch()
    stories.Story(run, total_steps=10).begin().measure("base", 3.0, 0.1).ask(5, "refund").measure("tuned", 1.0, 0.5).tell(State.SUCCEEDED)
    stories.Story(run, 2, total_steps=20).begin(10).ask(15, "billing").measure("tuned", 0.5, 0.9).tell(State.SUCCEEDED, last_step=20)
    found = samples(run)["samples"]
    tuned = "Tuned (what was trained)"
    assert [(str(answer["label"]), answer["at"], answer["answer"], answer["between"]) for answer in found[0]["answers"]] == [
        ("Base model", None, "I'm sorry to hear that. Could you tell me", False), (tuned, 5, "refund", True), (tuned, 10, "billing", True),
        (tuned, 15, "billing", True), (tuned, 20, "billing", False),
    ]  # fmt: skip
    assert [len(sample["answers"]) for sample in found] == [5, 3, 3, 3], "in the training only some are asked"
    assert found[0]["answers"][1]["epoch"] == pytest.approx(5 / (20 / 3))


def test_samples_of_steps_that_were_undone_are_not_shown(bench: Bench) -> None:
    run = bench.launch()
    stories.Story(run, total_steps=20).begin().ask(6, "refund").ask(12, "login").tell(State.FAILED)
    stories.Story(run, 2, total_steps=20).begin(8).ask(14, "billing").tell(State.RUNNING)
    answers = samples(run)["samples"][0]["answers"]
    assert [(answer["at"], answer["answer"], answer["between"]) for answer in answers] == [(6, "refund", True), (14, "billing", True)]
