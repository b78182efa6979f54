"""The steps of the tests of datasets, taken as a browser takes them: upload, draft, mapping form, validation."""

from __future__ import annotations

import json
import re
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.urls import reverse

from tests.webapp.cast import Cast
from webapp.datasets.models import DatasetVersion

CSV = b"frage;absicht\n" + b"".join(b"Wo ist Paket %d?;%s\n" % (n, (b"versand", b"rechnung")[n % 2]) for n in range(40))
LABELLED = {"format": "classification", "classification.text": "frage", "classification.label": "absicht"}
GOOD = {"prompt": "Two and two?", "completion": "Four."}


def upload(cast: Cast, body: bytes, filename: str = "rows.csv", name: str = "Tickets", **files: bytes) -> HttpResponse:
    data: dict[str, Any] = {"name": name, "train_file": SimpleUploadedFile(filename, body)}
    data |= {f"{split}_file": SimpleUploadedFile(f"{split}.jsonl", content) for split, content in files.items()}
    return cast.client(cast.bob).post(reverse("datasets:new", args=["night"]), data)


def lines(*rows: Any) -> bytes:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()


def draft(cast: Cast, body: bytes, filename: str = "rows.csv", **files: bytes) -> DatasetVersion:
    answer = upload(cast, body, filename, **files)
    assert answer.status_code == 302, re.findall(r"<li>(.*?)</li>", answer.content.decode())
    return DatasetVersion.objects.get()


def form_of(version: DatasetVersion, cast: Cast, **changes: Any) -> dict[str, Any]:
    """What a browser would send of the mapping form as it stands."""
    page = cast.client(cast.bob).get(reverse("datasets:version", args=[version.pk]))
    form = page.context["form"]
    values = {field.html_name: field.value() for field in form if field.value() is not None and field.value() is not False}
    return {**values, **changes}


def page(version: DatasetVersion, cast: Cast) -> str:
    return cast.client(cast.vera).get(reverse("datasets:version", args=[version.pk])).content.decode()


def settle(version: DatasetVersion, cast: Cast, **changes: Any) -> DatasetVersion:
    answer = cast.client(cast.bob).post(reverse("datasets:validate", args=[version.pk]), form_of(version, cast, **changes))
    assert answer.status_code == 302
    version.refresh_from_db()
    return version
