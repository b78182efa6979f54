"""What the page of a run says besides its charts: the log, the settings, remedies, marks; and the copy of its columns."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse

from benchmarks.ui import long_run
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench
from webapp.runs.models import Record, Run
from webapp.runs.page import samples
from webapp.runs.remedies import data_link, remedies
from webapp.runs.run_log import every_line, last_words, log
from webapp.runs.services import points
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
    stories.Story(run, total_steps=10).begin().measure("base", 3.0, 0.1).measure("tuned", 1.0, 0.5).tell(State.SUCCEEDED)
    stories.Story(run, 2, total_steps=20).begin(10).measure("tuned", 0.5, 0.9).tell(State.SUCCEEDED)
    found = samples(run)["samples"][0]["answers"]
    assert [(str(answer["label"]), answer["at"]) for answer in found] == [
        ("Base model", None), ("Tuned (what was trained)", 10), ("Tuned (what was trained)", 20),
    ]  # fmt: skip
