"""The data check with a real tiny model in the real box: rows, lengths, copies, balance, lineage, and what a launch is refused for."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from jobs.errors import UserError
from tests.tiny import make_tiny_model
from tests.webapp.cast import Cast
from tests.webapp.datasets.steps import GOOD, draft, lines, settle
from tests.webapp.runs.rows import Bench
from webapp.catalog.models import BaseModel
from webapp.checks.models import Survey
from webapp.checks.services.survey import TASK, reconcile, survey
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.examine import examine
from webapp.datasets.services.validate import validate
from webapp.work.models import OutboxMessage

ROWS = [{"prompt": f"Where is parcel {n}? ", "completion": "Here, at the counter of the shop in the old harbour."} for n in range(20)]


def ready(cast: Cast, body: bytes, filename: str = "rows.jsonl", **changes: Any) -> DatasetVersion:
    version = settle(draft(cast, body, filename), cast, **changes)
    validate(version.pk)
    version.refresh_from_db()
    return version


@pytest.fixture
def model(cast: Cast) -> BaseModel:
    row = BaseModel.objects.create(team=cast.team, name="Tiny", source="hub", state="ready", revision="1")
    make_tiny_model(row.folder)
    return row


def get(cast: Cast, route: str, version: DatasetVersion, query: str = "") -> str:
    answer = cast.client(cast.vera).get(reverse(route, args=[version.pk]) + query)
    assert answer.status_code == 200
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content  # type: ignore[attr-defined]
    return bytes(body).decode()


def test_a_row_is_shown_as_the_model_sees_it(cast: Cast, model: BaseModel) -> None:
    version = ready(cast, lines(*ROWS))
    shown = get(cast, "checks:rows", version, "?row=2")
    assert "Row 2 of 19 of train" in shown
    assert '<span class="given">Where is parcel' in shown
    assert "</span>Here, at the counter of the shop in the old harbour.</span>" in shown
    tokens = get(cast, "checks:rows", version, "?view=tokens")
    assert '<li class=""><span>W</span><small>0 · ' in tokens
    assert "&quot;completion&quot;" in get(cast, "checks:rows", version, "?view=raw")


def test_lengths_are_measured_once_and_a_maximum_that_teaches_nothing_is_refused(cast: Cast, model: BaseModel) -> None:
    version = ready(cast, lines(*ROWS))
    url = reverse("checks:measure", args=[version.pk])
    for _ in range(2):
        assert cast.client(cast.bob).post(url, {"model": str(model.pk)}).status_code == 302
    found = Survey.objects.get()
    assert OutboxMessage.objects.filter(task=TASK, subject=found.pk).count() == 1
    assert 'hx-trigger="every 1s"' in get(cast, "checks:lengths", version)
    OutboxMessage.objects.all().delete()
    reconcile()
    assert OutboxMessage.objects.filter(task=TASK).count() == 1
    survey(found.pk)
    found.refresh_from_db()
    assert (found.state, found.result["rows"], found.result["untrained"]) == ("done", 19, 0)
    assert "cut at 16" in get(cast, "checks:lengths", version, "?maximum=16")
    bench = Bench(cast.team, cast.bob, version, model)
    with pytest.raises(UserError) as refused:
        bench.launch(training={"max_length": 16})
    assert refused.value.code == "nothing_to_learn"
    assert bench.launch(training={"max_length": 64}).state == "queued"
    assert "tickets" in get(cast, "datasets:lineage", version)


def test_rows_are_looked_at_as_a_whole_after_they_were_validated(cast: Cast, model: BaseModel) -> None:
    version = ready(cast, lines(*ROWS, ROWS[0]), validation_percent="0")
    assert version.examined == "waiting"
    examine(version.pk)
    version.refresh_from_db()
    assert version.examined == "done"
    assert version.examination["copies"]["within"] == {"train": 1}
    shown = get(cast, "datasets:copies", version, "?kind=exact")
    assert "train, row 21" in shown
    assert "line 1<" in shown
    assert get(cast, "datasets:copies-csv", version).splitlines()[1].startswith("exact,1.0,train,21,21,")
    assert "English" in get(cast, "datasets:balance", version)


def test_every_problem_is_paged_filtered_and_downloaded(cast: Cast) -> None:
    version = ready(cast, lines(GOOD, *["{"] * 120, {"prompt": "=x", "completion": ""}))
    assert version.state == "invalid"
    first = get(cast, "datasets:problems", version)
    assert first.count("not valid JSON") == 51
    assert "?page=2" in first
    assert get(cast, "datasets:problems", version, "?page=3").count("not valid JSON") == 21
    assert "No problem passes" in get(cast, "datasets:problems", version, "?code=answer_empty&split=test")
    assert get(cast, "datasets:problems", version, "?line=121").count("Line 121") == 1
    listed = get(cast, "datasets:problems-csv", version).splitlines()
    assert len(listed) == 122
    assert listed[1].startswith("train,2,2,error,json_invalid,")


def test_a_version_with_one_class_says_so_and_cannot_be_launched(cast: Cast, model: BaseModel) -> None:
    body = b"text,label\n" + b"".join(b"text %d,good\n" % n for n in range(20))
    version = ready(cast, body, "rows.csv", format="classification")
    assert version.state == "ready"
    shown = get(cast, "datasets:version", version)
    assert "nothing would be learned" in shown
    assert f"dataset={version.pk}" not in cast.client(cast.bob).get(reverse("datasets:version", args=[version.pk])).content.decode()
    with pytest.raises(UserError) as refused:
        Bench(cast.team, cast.bob, version, model).launch()
    assert (refused.value.code, refused.value.where) == ("one_class", {"field": "dataset_version"})


def test_description_and_licence(cast: Cast) -> None:
    dataset = draft(cast, lines(GOOD), "rows.jsonl").dataset
    url = reverse("datasets:describe", args=[dataset.pk])
    answer = cast.client(cast.bob).post(url, {"name": "Tickets", "description": "From the shop.", "licence": "CC-BY-4.0"})
    assert answer.status_code == 302
    shown = cast.client(cast.vera).get(reverse("datasets:detail", args=[dataset.pk])).content.decode()
    assert "CC-BY-4.0" in shown
    assert "From the shop." in shown
