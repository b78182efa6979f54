"""Validation in the real box: reports, files, tasks, doorbells."""

from __future__ import annotations

import gzip
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from jobs.data.records import read_records
from jobs.errors import UserError
from jobs.spec import Mapping
from tests.webapp.cast import Cast
from tests.webapp.datasets.steps import CSV, GOOD, LABELLED, draft, lines, page, settle
from webapp.celery import app
from webapp.core.locks import alone
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.reconcile import reconcile
from webapp.datasets.services.start_validation import Choices, start_validation
from webapp.datasets.services.validate import manifest_sha256, validate
from webapp.work.models import OutboxMessage


def test_validation_is_announced_and_gives_a_version_that_never_changes(cast: Cast) -> None:
    version = settle(draft(cast, CSV), cast, **LABELLED, validation_percent="10", test_percent="20")
    assert version.state == "validating"
    assert [(ring.task, ring.subject, ring.queue) for ring in OutboxMessage.objects.all()] == [("datasets.validate", version.pk, "short")]
    assert 'hx-trigger="every 1s"' in page(version, cast)
    validate(version.pk)
    version.refresh_from_db()
    assert version.state == "ready"
    assert {split: file["rows"] for split, file in version.manifest.items()} == {"train": 29, "validation": 3, "test": 8}
    assert version.sha256 == manifest_sha256(version.manifest)
    assert [len(list(read_records(version.folder / f"{split}.jsonl", None))) for split in version.manifest] == [29, 3, 8]
    shown = page(version, cast)
    assert reverse("runs:new", args=["night"]) not in shown
    assert (
        f"{reverse('runs:new', args=['night'])}?dataset={version.pk}"
        in cast.client(cast.bob).get(reverse("datasets:version", args=[version.pk])).content.decode()
    )
    before = DatasetVersion.objects.filter(pk=version.pk).values().get()
    validate(version.pk)
    with pytest.raises(UserError) as refused:
        start_validation(version, Choices(Mapping("text", {"text": "frage"})))
    assert refused.value.code == "version_fixed"
    assert DatasetVersion.objects.filter(pk=version.pk).values().get() == before
    # Once it is ready it is looked at as a whole, and announced once.
    assert sorted(OutboxMessage.objects.values_list("task", flat=True)) == ["datasets.examine", "datasets.validate"]


def test_bad_rows_are_refused_with_their_lines_and_skipped_only_by_choice(cast: Cast) -> None:
    version = settle(
        draft(cast, lines(GOOD, "{broken", {"prompt": "x", "completion": ""}, {**GOOD, "prompt": "other"}), "rows.jsonl"), cast
    )
    validate(version.pk)
    version.refresh_from_db()
    assert version.state == "invalid"
    assert not version.folder.exists()
    assert [problem["line"] for problem in version.report["problems"]] == [2, 3]
    assert "2 of 4 rows cannot be used" in page(version, cast)
    cast.client(cast.bob).post(reverse("datasets:skip-bad-rows", args=[version.pk]))
    version.refresh_from_db()
    assert (version.state, version.skip_bad_rows, OutboxMessage.objects.count()) == ("validating", True, 2)
    validate(version.pk)
    version.refresh_from_db()
    assert version.state == "ready"
    assert sum(file["rows"] for file in version.manifest.values()) == 2
    assert "2 rows were skipped by choice" in page(version, cast)


def test_separate_files_stay_separate(cast: Cast) -> None:
    rows = [{"prompt": str(n), "completion": "x"} for n in range(6)]
    version = settle(draft(cast, gzip.compress(lines(*rows[:3])), "rows.jsonl.gz", validation=lines(rows[3]), test=lines(*rows[4:])), cast)
    validate(version.pk)
    version.refresh_from_db()
    assert {split: file["rows"] for split, file in version.manifest.items()} == {"train": 3, "validation": 1, "test": 2}


def test_a_file_that_bursts_the_box_ends_with_a_message(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    from webapp.datasets.services import validate as module

    version = settle(draft(cast, lines(GOOD), "rows.jsonl"), cast)
    monkeypatch.setattr(module, "LIMITS", module.Limits(cpu_seconds=1, wall_seconds=0.05))
    validate(version.pk)
    version.refresh_from_db()
    assert version.state == "invalid"
    assert "longer than 0.05 seconds" in version.message
    assert "longer than 0.05 seconds" in page(version, cast)


def test_a_second_copy_of_the_task_does_nothing(cast: Cast) -> None:
    version = settle(draft(cast, lines(GOOD), "rows.jsonl"), cast)
    with alone(version.folder.with_suffix(".lock")) as mine:
        assert mine
        validate(version.pk)
    version.refresh_from_db()
    assert version.state == "validating"
    assert not version.folder.exists()


def test_the_task_is_registered_under_its_name_and_acknowledged_late(cast: Cast) -> None:
    app.loader.import_default_modules()
    task = app.tasks["datasets.validate"]
    assert (task.acks_late, task.time_limit, task.soft_time_limit) == (True, 300, 270)
    version = settle(draft(cast, lines(GOOD, {**GOOD, "prompt": "b"}), "rows.jsonl"), cast)
    task(str(version.pk))
    version.refresh_from_db()
    assert version.state == "ready"


def test_what_a_killed_validation_left_is_cleared(cast: Cast) -> None:
    version = settle(draft(cast, lines(GOOD, {**GOOD, "prompt": "b"}), "rows.jsonl"), cast)
    version.folder.mkdir(parents=True)
    (version.folder / "old.jsonl").write_text("old")
    left = version.folder.parent / f".{version.pk}-abc"
    left.mkdir()
    validate(version.pk)
    assert sorted(path.name for path in version.folder.iterdir()) == ["report.json", "train.jsonl", "validation.jsonl"]
    assert not left.exists()


def test_a_lost_doorbell_rings_again_and_only_then(cast: Cast) -> None:
    version = settle(draft(cast, lines(GOOD), "rows.jsonl"), cast)
    reconcile()
    assert OutboxMessage.objects.count() == 1
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(minutes=5))
    reconcile()
    reconcile()
    assert OutboxMessage.objects.filter(subject=version.pk).count() == 2
