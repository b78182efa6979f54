"""Versions, files of the host, and the list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from jobs.errors import UserError
from tests.webapp.cast import Cast
from tests.webapp.datasets.steps import CSV, GOOD, draft, lines, settle
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.services.register_files import create_dataset_from_files


def test_a_new_version_keeps_the_mapping_and_counts_on(cast: Cast) -> None:
    first = settle(draft(cast, CSV), cast, **{"format": "text", "text.text": "frage"})
    client = cast.client(cast.bob)
    answer = client.post(reverse("datasets:new-version", args=[first.dataset_id]), {"train_file": SimpleUploadedFile("b.csv", CSV)})
    second = DatasetVersion.objects.get(number=2)
    assert answer["Location"] == reverse("datasets:version", args=[second.pk])
    assert (second.mapping, second.state) == (first.mapping, "draft")
    assert "@2" in client.get(reverse("datasets:detail", args=[first.dataset_id])).content.decode()


def test_files_of_the_host_become_a_ready_version(cast: Cast, tmp_path: Path) -> None:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_bytes(lines(*({"prompt": str(n), "completion": "x"} for n in range(20))))
    test.write_bytes(lines({"prompt": "t", "completion": "y"}))
    version = create_dataset_from_files(cast.team, cast.alice, "Sample", {"train": train, "test": test})
    assert version.state == "ready"
    assert (version.rows("train"), version.rows("validation"), version.rows("test")) == (19, 1, 1)
    assert version.train_upload.path.read_bytes() == train.read_bytes()


def test_files_of_the_host_that_are_no_good(cast: Cast, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(GOOD, "{"))
    with pytest.raises(UserError):
        create_dataset_from_files(cast.team, cast.alice, "Sample", {"train": tmp_path / "a.jsonl"})


def test_the_list_asks_the_database_a_fixed_number_of_times(cast: Cast, django_assert_num_queries: Any) -> None:
    version = draft(cast, CSV)
    client, url = cast.client(cast.vera), reverse("datasets:list", args=["night"])
    client.get(url)
    for number in range(10):
        dataset = Dataset.objects.create(team=cast.team, name=f"d{number}", created_by=cast.bob)
        DatasetVersion.objects.create(dataset=dataset, number=1, train_upload=version.train_upload, created_by=cast.bob)
    with django_assert_num_queries(12):
        assert client.get(url).content.count(b"Needs mapping") == 11
