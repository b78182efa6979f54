"""Requests that no client of good will sends: each is refused with the field at fault, and nothing is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.webapp.api.given import Program, id_of, program
from tests.webapp.cast import Cast
from tests.webapp.files.given import CHAT, lines, read_rows, stored
from webapp.api.models import Job
from webapp.catalog.models import BaseModel
from webapp.files.models import PartedUpload

DIGITS = 10**400


@pytest.fixture
def alice(cast: Cast) -> Program:
    BaseModel.objects.create(name="Tiny 1", source="hub", repository="acme/Tiny-1", state="ready", revision="1", licence="Apache-2.0")
    return program(cast.team, cast.alice)


def send(alice: Program, path: str, body: str | bytes) -> Any:
    headers = {"Authorization": f"Bearer {alice.secret}"}
    return alice.client.generic("POST", f"/v1/{path}", body, content_type="application/json", headers=headers)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"hyperparameters": {"learning_rate_multiplier": DIGITS}}, "hyperparameters.learning_rate_multiplier"),
        ({"hyperparameters": {"learning_rate_multiplier": float("inf")}}, "hyperparameters.learning_rate_multiplier"),
        ({"hyperparameters": {"n_epochs": DIGITS}}, "hyperparameters.n_epochs"),
        ({"seed": DIGITS}, "seed"),
        ({"suffix": "a\x00b"}, "suffix"),
        ({"suffix": "\ud800"}, "suffix"),
        ({"metadata": {"a": "\x00"}}, "metadata.a"),
    ],
)
def test_values_that_cannot_be_kept(cast: Cast, alice: Program, change: dict[str, Any], param: str) -> None:
    file = read_rows(stored(cast.team, cast.alice, lines(CHAT)))
    answer = alice.ask("POST", "fine_tuning/jobs", {"model": "acme/Tiny-1", "training_file": id_of(file), **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not Job.objects.exists()


@pytest.mark.parametrize("body", ["", "[" * 100_000, b"\xff\xfe", '{"seed": 1' + "0" * 5000 + "}", "{"])
def test_bodies_that_are_no_json(alice: Program, body: str | bytes) -> None:
    answer = send(alice, "fine_tuning/jobs", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, None)
    assert not Job.objects.exists()


def test_a_name_of_an_upload_that_cannot_be_kept(alice: Program) -> None:
    asked = {"bytes": 1, "mime_type": "text/jsonl", "purpose": "fine-tune"}
    answer = alice.ask("POST", "uploads", {**asked, "filename": "a\x00.jsonl"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "filename")
    assert not PartedUpload.objects.exists()


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("fine_tuning/jobs?metadata[a]=%00", 400, "metadata"),
        ("fine_tuning/jobs?after=%00", 400, "after"),
        ("comparisons?run=x", 400, "run.0"),
        ("models/%00", 404, "model"),
        ("files/file-%ED%A0%80", 404, None),
        ("%ff", 404, None),
    ],
)
def test_addresses(alice: Program, path: str, status: int, param: str | None) -> None:
    answer = alice.ask("GET", path)
    assert (answer.status_code, json.loads(answer.content)["error"]["param"]) == (status, param)
