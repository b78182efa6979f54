"""What an experiment would take, told before it is launched: by the real engine, for a real small model."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.utils.timezone import now

from jobs.models.inspect import inspect_model
from tests.tiny import make_tiny_model
from tests.webapp.runs import stories
from tests.webapp.runs.experiments.test_pages import form_data, new_url
from tests.webapp.runs.rows import Bench
from webapp.core.formats import format_bytes
from webapp.runs.experiments.form import ExperimentForm
from webapp.runs.experiments.preview import Planned, Preview, preview_of
from webapp.runs.models import Run, Worker


@pytest.fixture
def desk(bench: Bench) -> Bench:
    """Alice's team with a real tiny model."""
    make_tiny_model(bench.base_model.folder)
    bench.base_model.facts = inspect_model(bench.base_model.folder).to_json()
    bench.base_model.save()
    return bench


def asked(bench: Bench, **changes: Any) -> ExperimentForm:
    form = ExperimentForm(bench.team, form_data(bench, kind="list", lines="full\nlora rank=4 seed=0-2\nlora rank=8", **changes))
    assert form.is_valid(), form.errors
    return form


def test_each_method_is_looked_at_once_for_the_least_worker(desk: Bench, client: Client) -> None:
    for name, memory in (("large", 64_000_000_000), ("small", 100_000_000)):
        Worker.objects.create(name=name, queue="train", seen_at=now(), device={**stories.DEVICE, "name": name, "memory_bytes": memory})
    found = preview_of(asked(desk))
    assert found.unknown == ""
    assert [(row.method, row.settings, row.runs, list(row.seeds)) for row in found.rows] == [
        ("Full fine-tuning", "", 1, [0]), ("LoRA", "rank 4", 3, [0, 1, 2]), ("LoRA", "rank 8", 1, [0]),
    ]  # fmt: skip
    full, four, eight = found.rows
    assert four.trained is not None
    assert eight.trained == 2 * four.trained
    assert full.peak_bytes is not None
    assert full.peak_bytes > 100_000_000
    assert found.peak_bytes == max(row.peak_bytes or 0 for row in found.rows)
    assert not any(row.fits for row in found.rows), "the smaller of the workers has too little memory"
    client.force_login(desk.user)
    page = client.post(new_url(desk), {**form_data(desk, kind="list", lines="full"), "preview": "1"}).text
    assert "does not fit" in page
    assert format_bytes(full.peak_bytes) in page
    assert not Run.objects.exists()


def test_without_a_worker_the_parameters_are_told_alone(desk: Bench) -> None:
    found = preview_of(asked(desk))
    assert "No worker" in found.unknown
    assert [row.peak_bytes for row in found.rows] == [None, None, None]
    assert all(row.trained for row in found.rows)
    assert found.seconds is None
    assert found.peak_bytes is None


def test_the_time_of_all_runs_is_known_where_that_of_each_is() -> None:
    known = Planned("LoRA", "", [1e-4], [0, 1], runs=2, seconds=30.0, peak_bytes=5)
    assert Preview([known, known], 4, "").seconds == 120.0
    assert Preview([known, Planned("DoRA", "", [1e-4], [0], runs=1, peak_bytes=7)], 3, "").seconds is None
    assert Preview([known, Planned("DoRA", "", [1e-4], [0], runs=1, peak_bytes=7)], 3, "").peak_bytes == 7
