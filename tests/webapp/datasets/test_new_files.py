"""New files: what a plain form makes of them, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from tests.webapp.cast import Cast
from tests.webapp.datasets.steps import CSV, GOOD, draft, lines, page, upload
from webapp.datasets.models import Dataset, DatasetVersion, Upload


def test_a_plain_form_makes_a_draft_and_says_what_it_recognised(cast: Cast) -> None:
    version = draft(cast, "\ufeff".encode() + CSV.replace(b"\n", b"\r\n"), "Tickets März.CSV")
    assert version.state == "draft"
    assert version.train_upload.filename == "Tickets März.CSV"
    facts = version.sniffed["facts"]
    assert (facts["kind"], facts["separator"], facts["columns"]) == ("csv", "semicolon", ["frage", "absicht"])
    shown = page(version, cast)
    for words in ("UTF-8", "semicolon", "frage, absicht", "Wo ist Paket 0?"):
        assert words in shown


def test_a_file_uploaded_before_is_taken_by_its_id(cast: Cast) -> None:
    first = draft(cast, CSV)
    known = {"name": "Again", "train_upload": str(first.train_upload_id)}
    answer = cast.client(cast.bob).post(reverse("datasets:new", args=["night"]), known)
    assert answer.status_code == 302
    assert DatasetVersion.objects.filter(train_upload=first.train_upload).count() == 2


@pytest.mark.parametrize("which", ["of another team", "incomplete", "of nobody"])
def test_an_upload_that_cannot_be_taken(cast: Cast, which: str) -> None:
    team = cast.other_team if which == "of another team" else cast.team
    later = timezone.now() + timedelta(hours=1)
    row = Upload.objects.create(team=team, created_by=cast.bob, filename="a", bytes_total=9, bytes_received=3, expires_at=later)
    known = row.pk if which != "of nobody" else cast.bob.pk
    answer = cast.client(cast.bob).post(reverse("datasets:new", args=["night"]), {"name": "x", "train_upload": str(known)})
    assert answer.status_code == 422
    assert ("is not complete" if which == "incomplete" else "no longer there") in answer.content.decode()
    assert not Dataset.objects.exists()


@pytest.mark.parametrize(
    ("filename", "body", "words"),
    [
        ("a.xlsx", b"PK\x03\x04" + b"\0" * 26 + b"xl/workbook.xml", "an Excel workbook (.xlsx)"),
        ("a.csv", b"", "The file is empty"),
        ("a.jsonl", b"\x80\x04\x95" + b"\x00" * 200, "not a file of text rows"),
    ],
)
def test_a_file_that_is_no_file_of_rows_makes_no_dataset(cast: Cast, filename: str, body: bytes, words: str) -> None:
    answer = upload(cast, body, filename)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert not Dataset.objects.exists()


def test_a_bad_test_file_is_named_at_its_field(cast: Cast) -> None:
    answer = upload(cast, lines(GOOD, GOOD), "a.jsonl", test=b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    assert answer.status_code == 422
    assert answer.context["form"].errors.keys() == {"test_file"}


def test_a_taken_name(cast: Cast) -> None:
    draft(cast, CSV)
    answer = upload(cast, CSV)
    assert answer.status_code == 422
    assert answer.context["form"].errors.keys() == {"name"}


def test_hostile_text_stays_text(cast: Cast) -> None:
    evil = "<script>alert(1)</script>"
    version = draft(cast, lines({"prompt": evil, "completion": evil}), f"{evil}.jsonl")
    Dataset.objects.update(name=evil)
    for url in (reverse("datasets:version", args=[version.pk]), reverse("datasets:list", args=["night"])):
        shown = cast.client(cast.vera).get(url).content.decode()
        assert evil not in shown
        assert "&lt;script&gt;alert(1)" in shown
