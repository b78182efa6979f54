"""Downloads of what a run left behind: the zip, each file in it, and the checksums that `sha256sum` reads."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient
from django.urls import reverse

from jobs.export.archive import archive
from tests.webapp.cast import Cast
from tests.webapp.test_every_url import make_things
from webapp.runs.models import Artifact

FILES = {"adapter_config.json": b'{"r": 16}', "adapter_model.safetensors": bytes(range(256)) * 3000}


@pytest.fixture
def artifact(cast: Cast, tmp_path: Path) -> Artifact:
    """A zip as the engine packs it, of a run of Alice's team."""
    run = make_things(cast).run
    source = tmp_path / "packed"
    source.mkdir()
    for name, body in FILES.items():
        (source / name).write_bytes(body)
    packed = archive(source, run.attempt_folder(1) / "artifacts" / "second.zip")
    event = packed.event("adapter", run.attempt_folder(1), {})
    return Artifact.objects.create(run=run, attempt=1, **{key: event[key] for key in ("name", "kind", "path", "bytes", "sha256", "files")})


async def fetch(client: AsyncClient, url: str, **headers: str) -> tuple[int, bytes, Any]:
    response = await client.get(url, headers=headers)
    body = b"".join([piece async for piece in response]) if response.streaming else response.content
    return response.status_code, body, response


@pytest.mark.django_db(transaction=True)
async def test_a_download_that_breaks_off_is_resumed_and_is_the_file(artifact: Artifact, cast: Cast, tmp_path: Path) -> None:
    client = await cast.async_client(cast.vera)
    url = reverse("artifacts:download", args=[artifact.pk])
    first = await fetch(client, url, range="bytes=0-399999")
    etag = first[2]["ETag"]
    second = await fetch(client, url, **{"range": "bytes=400000-", "if-range": etag})
    assert (first[0], second[0]) == (206, 206)
    assert hashlib.sha256(first[1] + second[1]).hexdigest() == artifact.sha256 == etag.strip('"')
    assert second[2]["Content-Type"] == "application/zip"
    assert second[2]["Content-Disposition"] == 'attachment; filename="second.zip"'
    (tmp_path / "got.zip").write_bytes(first[1] + second[1])
    with zipfile.ZipFile(tmp_path / "got.zip") as got:
        assert {name: got.read(name) for name in got.namelist()} == FILES


@pytest.mark.django_db(transaction=True)
async def test_each_file_of_the_zip_alone(artifact: Artifact, cast: Cast) -> None:
    client = await cast.async_client(cast.vera)
    for number, member in enumerate(artifact.files):
        status, body, response = await fetch(client, reverse("artifacts:file", args=[artifact.pk, number]))
        assert (status, body) == (200, FILES[member["name"]])
        assert response["Content-Type"] == "application/octet-stream"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Content-Security-Policy"] == "sandbox"
        assert hashlib.sha256(body).hexdigest() == member["sha256"]
    assert (await fetch(client, reverse("artifacts:file", args=[artifact.pk, len(FILES)])))[0] == 404


@pytest.mark.django_db(transaction=True)
async def test_sha256sum_accepts_what_was_downloaded(artifact: Artifact, cast: Cast, tmp_path: Path) -> None:
    client = await cast.async_client(cast.bob)
    for number, member in enumerate(artifact.files):
        (tmp_path / member["name"]).write_bytes((await fetch(client, reverse("artifacts:file", args=[artifact.pk, number])))[1])
    (tmp_path / artifact.name).write_bytes((await fetch(client, reverse("artifacts:download", args=[artifact.pk])))[1])
    (tmp_path / "sums").write_bytes((await fetch(client, reverse("artifacts:sha256", args=[artifact.pk])))[1])
    checked = subprocess.run(["sha256sum", "--check", "sums"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert checked.stdout.splitlines() == ["second.zip: OK", "adapter_config.json: OK", "adapter_model.safetensors: OK"]


@pytest.mark.django_db(transaction=True)
async def test_a_row_whose_file_is_gone(artifact: Artifact, cast: Cast) -> None:
    artifact.file.unlink()
    client = await cast.async_client(cast.alice)
    assert (await client.get(reverse("artifacts:download", args=[artifact.pk]))).status_code == 404
    url = reverse("artifacts:sha256", args=[artifact.pk])
    await sync_to_async(artifact.delete)()
    assert (await client.get(url)).status_code == 404
