"""Resumable uploads as the protocol says it (tus 1.0: core, creation, termination, checksum)."""

from __future__ import annotations

import base64
import fcntl
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.webapp.cast import Cast
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.datasets.services import receive_part
from webapp.datasets.services.create_upload import label_of, suffix_of
from webapp.datasets.services.reconcile import reconcile
from webapp.settings.env import ENV

PART = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0"}
DATA = bytes(range(256)) * 40


class Tus:
    """What tus-js-client sends, header by header."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def create(self, length: int | str, filename: str = "rows.jsonl") -> HttpResponse:
        name = base64.b64encode(filename.encode()).decode()
        headers = {**TUS, "Upload-Length": str(length), "Upload-Metadata": f"filename {name},filetype"}
        return self.client.post(reverse("datasets:upload-create", args=["night"]), headers=headers)

    def patch(self, url: str, offset: int | str, body: bytes, **headers: str) -> HttpResponse:
        return self.client.generic("PATCH", url, body, content_type=PART, headers={**TUS, "Upload-Offset": str(offset), **headers})

    def head(self, url: str) -> HttpResponse:
        return self.client.head(url, headers=TUS)

    def delete(self, url: str) -> HttpResponse:
        return self.client.delete(url, headers=TUS)


@pytest.fixture
def tus(cast: Cast) -> Tus:
    return Tus(cast.client(cast.bob))


def test_the_server_says_what_it_speaks(tus: Tus) -> None:
    answer = tus.client.options(reverse("datasets:upload-create", args=["night"]))
    assert answer.status_code == 204
    assert answer["Tus-Version"] == "1.0.0"
    assert set(answer["Tus-Extension"].split(",")) == {"creation", "termination", "checksum"}
    assert answer["Tus-Max-Size"] == str(ENV.upload_limit_bytes)
    assert "sha256" in answer["Tus-Checksum-Algorithm"].split(",")


def test_a_file_in_three_parts(tus: Tus, cast: Cast) -> None:
    created = tus.create(len(DATA))
    assert created.status_code == 201
    url = created["Location"]
    for start in (0, 4000, 8000):
        assert tus.head(url)["Upload-Offset"] == str(start)
        part = DATA[start : start + 4000]
        answer = tus.patch(url, start, part)
        assert (answer.status_code, answer["Upload-Offset"]) == (204, str(start + len(part)))
    row = Upload.objects.get()
    assert row.state == "complete"
    assert row.sha256 == hashlib.sha256(DATA).hexdigest()
    assert row.path.read_bytes() == DATA
    assert row.path.stat().st_mode & 0o777 == 0o600
    assert (row.team, row.created_by) == (cast.team, cast.bob)
    head = tus.head(url)
    assert (head["Upload-Offset"], head["Upload-Length"], head["Cache-Control"].count("no-store")) == ("10240", "10240", 1)


def test_a_colleague_goes_on_with_an_upload_and_a_stranger_does_not(tus: Tus, cast: Cast) -> None:
    url = tus.create(8)["Location"]
    tus.patch(url, 0, b"1234")
    assert Tus(cast.client(cast.charlie)).patch(url, 4, b"5678").status_code == 404
    assert Tus(cast.client(cast.vera)).patch(url, 4, b"5678").status_code == 403
    assert Tus(cast.client(cast.alice)).patch(url, 4, b"5678").status_code == 204
    assert Upload.objects.get().path.read_bytes() == b"12345678"


@pytest.mark.parametrize("offset", [0, 3, 5, 100])
def test_another_offset_is_a_conflict_and_changes_nothing(tus: Tus, offset: int) -> None:
    url = tus.create(8)["Location"]
    tus.patch(url, 0, b"1234")
    assert tus.patch(url, offset, b"xxxx").status_code == 409
    assert tus.head(url)["Upload-Offset"] == "4"
    assert Upload.objects.get().path.read_bytes() == b"1234"


def test_a_complete_upload_takes_no_more(tus: Tus) -> None:
    url = tus.create(4)["Location"]
    tus.patch(url, 0, b"1234")
    assert tus.patch(url, 4, b"5").status_code == 409
    assert Upload.objects.get().path.read_bytes() == b"1234"


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_a_checksum_holds_or_the_part_is_dropped(tus: Tus, algorithm: str) -> None:
    url = tus.create(8)["Location"]
    digest = base64.b64encode(hashlib.new(algorithm, b"1234").digest()).decode()
    assert tus.patch(url, 0, b"1235", **{"Upload-Checksum": f"{algorithm} {digest}"}).status_code == 460
    assert tus.head(url)["Upload-Offset"] == "0"
    assert tus.patch(url, 0, b"1234", **{"Upload-Checksum": f"{algorithm} {digest}"}).status_code == 204


@pytest.mark.parametrize("checksum", ["crc32 AAAA", "sha256", "sha256 %%%", ""])
def test_a_checksum_that_we_cannot_read(tus: Tus, checksum: str) -> None:
    url = tus.create(4)["Location"]
    assert tus.patch(url, 0, b"1234", **{"Upload-Checksum": checksum}).status_code in (400, 460)
    assert Upload.objects.get().bytes_received == 0


def test_more_than_announced_is_refused(tus: Tus) -> None:
    url = tus.create(4)["Location"]
    assert tus.patch(url, 0, b"12345").status_code == 413
    assert tus.head(url)["Upload-Offset"] == "0"


def test_a_file_over_the_limit_is_refused_before_its_bytes(tus: Tus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "upload_limit_bytes", 1000)
    answer = tus.create(1001)
    assert answer.status_code == 413
    assert b"1000" in answer.content
    assert not Upload.objects.exists()
    assert tus.create(1000).status_code == 201


@pytest.mark.parametrize("length", ["", "-1", "0", "many", "1e3"])
def test_a_length_that_is_none(tus: Tus, length: str) -> None:
    assert tus.create(length).status_code == 400
    assert not Upload.objects.exists()


def test_metadata_must_be_base64(tus: Tus) -> None:
    headers = {**TUS, "Upload-Length": "4", "Upload-Metadata": "filename ../../etc"}
    assert tus.client.post(reverse("datasets:upload-create", args=["night"]), headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\win.ini", "win.ini"),
        ("/abs/rows.csv", "rows.csv"),
        ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
        ("x\x00.csv", "x.csv"),
        ("", "file"),
        ("..", ".."),
        ("\u202egnp.csv", "gnp.csv"),
        ("ü" * 300 + ".csv", "ü" * 251 + ".csv"),
    ],
)
def test_a_name_is_a_label_and_never_a_path(name: str, label: str, tus: Tus) -> None:
    assert label_of(name) == label
    tus.create(4, name)
    row = Upload.objects.get()
    assert row.filename == label
    assert row.path.name == str(row.pk)
    assert row.path.parent.name == "uploads"


@pytest.mark.parametrize(("name", "suffix"), [("a.CSV.gz", "csv"), ("a.b.jsonl", "jsonl"), ("a.gz", ""), ("a.exe", ""), ("csv", "")])
def test_what_a_name_says_of_the_kind(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


def test_another_version_of_the_protocol(tus: Tus) -> None:
    url = tus.create(4)["Location"]
    for answer in (
        tus.client.head(url),
        tus.client.head(url, headers={"Tus-Resumable": "0.2.2"}),
        tus.client.post(reverse("datasets:upload-create", args=["night"]), headers={"Upload-Length": "4"}),
    ):
        assert (answer.status_code, answer["Tus-Version"]) == (412, "1.0.0")


def test_a_part_of_another_type(tus: Tus) -> None:
    url = tus.create(4)["Location"]
    answer = tus.client.generic("PATCH", url, b"1234", content_type="text/plain", headers={**TUS, "Upload-Offset": "0"})
    assert answer.status_code == 415


def test_termination(tus: Tus) -> None:
    url = tus.create(8)["Location"]
    path = Upload.objects.get().path
    tus.patch(url, 0, b"1234")
    assert tus.delete(url).status_code == 204
    assert not path.exists()
    assert tus.head(url).status_code == tus.patch(url, 4, b"5678").status_code == 404


def test_an_upload_that_a_dataset_stands_on_stays(tus: Tus, cast: Cast) -> None:
    url = tus.create(4)["Location"]
    tus.patch(url, 0, b"1234")
    row = Upload.objects.get()
    dataset = Dataset.objects.create(team=cast.team, name="d", created_by=cast.bob)
    DatasetVersion.objects.create(dataset=dataset, number=1, train_upload=row, created_by=cast.bob)
    assert tus.delete(url).status_code == 409
    assert row.path.read_bytes() == b"1234"


def test_a_part_needs_the_csrf_token(cast: Cast) -> None:
    strict = Tus(cast.client(cast.bob, enforce_csrf_checks=True))
    assert strict.create(4).status_code == 403
    assert not Upload.objects.exists()
    page = strict.client.get(reverse("datasets:new", args=["night"])).content.decode()
    token = page.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
    headers = {**TUS, "Upload-Length": "4", "X-CSRFToken": token}
    url = strict.client.post(reverse("datasets:upload-create", args=["night"]), headers=headers)["Location"]
    assert strict.patch(url, 0, b"1234").status_code == 403
    assert strict.patch(url, 0, b"1234", **{"X-CSRFToken": token}).status_code == 204


def test_two_parts_never_write_at_once(tus: Tus) -> None:
    url = tus.create(8)["Location"]
    with Upload.objects.get().path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert tus.patch(url, 0, b"1234").status_code == 423
    assert tus.patch(url, 0, b"1234").status_code == 204


def test_a_full_disk(tus: Tus, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tus.create(8)["Location"]
    tus.patch(url, 0, b"1234")

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(receive_part.os, "pwrite", full)
    assert tus.patch(url, 4, b"5678").status_code == 507
    monkeypatch.undo()
    assert Upload.objects.get().path.read_bytes() == b"1234"
    assert tus.patch(url, 4, b"5678").status_code == 204


def test_uploads_given_up_are_swept_away_and_used_ones_are_kept(tus: Tus, cast: Cast) -> None:
    for _ in range(3):
        tus.patch(tus.create(4)["Location"], 0, b"1234")
    old, used, fresh = Upload.objects.order_by("created_at")
    dataset = Dataset.objects.create(team=cast.team, name="d", created_by=cast.bob)
    DatasetVersion.objects.create(dataset=dataset, number=1, train_upload=used, created_by=cast.bob)
    Upload.objects.filter(pk__in=[old.pk, used.pk]).update(expires_at=timezone.now() - timedelta(seconds=1))
    reconcile()
    assert set(Upload.objects.all()) == {used, fresh}
    assert [row.path.exists() for row in (old, used, fresh)] == [False, True, True]
