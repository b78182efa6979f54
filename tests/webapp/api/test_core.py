"""What holds for every address under /v1: who gets in, the shape of refusals, headers, rate limits, keys that make a request one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern

from tests.flow.site import Site
from tests.webapp.api.given import Program, program
from tests.webapp.cast import Cast
from tests.webapp.files.given import CHAT, lines, read_rows, stored
from webapp.accounts.models import ApiToken, Membership
from webapp.api.app import api
from webapp.api.models import Job, KeptAnswer
from webapp.catalog.models import BaseModel
from webapp.settings.env import ENV

DOCUMENT = api.get_openapi_schema(path_prefix="/v1/")
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
IDS = {
    "file_id": "file-" + "1" * 32, "upload_id": "upload_" + "1" * 32, "job_id": "ftjob-" + "1" * 32, "artifact_id": "artifact-" + "1" * 32,
    "dataset_id": "dataset-" + "1" * 32, "base_id": "base-" + "1" * 32, "model": "no/model", "checkpoint": "ft:a", "permission_id": "cp_1",
}  # fmt: skip


def address(path: str) -> str:
    for name, value in IDS.items():
        path = path.replace(f"{{{name}}}", value)
    return path.removeprefix("/v1/")


def test_the_document_has_every_operation() -> None:
    routed = [pattern for pattern in api.urls[0] if isinstance(pattern, URLPattern)]
    assert len(DOCUMENT["paths"]) == len({str(pattern.pattern) for pattern in routed if str(pattern.pattern)})
    assert len(OPERATIONS) > 25


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_without_a_token_or_its_scope_nobody_gets_in(cast: Cast, method: str, path: str) -> None:
    signed_in = cast.client(cast.alice)
    answer = signed_in.generic(method, f"/v1/{address(path)}", content_type="application/json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer["x-request-id"].startswith("req_")
    powerless = program(cast.team, cast.alice, [])
    answer = powerless.ask(method, address(path))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(("method", "path"), [each for each in OPERATIONS if "{" in each[1] and "permissions" not in each[1]])
def test_what_is_not_the_teams_is_not_there(cast: Cast, method: str, path: str) -> None:
    body = {"part_ids": []} if path.endswith("/complete") else None
    if path.endswith("/parts"):
        return
    answer = program(cast.team, cast.alice).ask(method, address(path), body)
    assert (answer.status_code, set(answer.json()["error"])) == (404, {"message", "type", "param", "code"})


@pytest.mark.parametrize("secret", ["graft_nonsense", "sk-proj-abc", ""])
def test_a_wrong_token_is_an_authentication_error(cast: Cast, secret: str) -> None:
    answer = Program(secret).ask("GET", "models")
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")


def test_a_token_ends_with_its_makers_membership(cast: Cast) -> None:
    bob = program(cast.team, cast.bob)
    assert bob.ask("GET", "files").status_code == 200
    Membership.objects.filter(user=cast.bob).delete()
    assert bob.ask("GET", "files").status_code == 401
    assert ApiToken.objects.get().last_used_at is not None


def test_unknown_addresses_and_methods_are_answered_in_the_apis_shape(cast: Cast) -> None:
    bob = program(cast.team, cast.bob)
    for method, path, status in (("GET", "nothing/here", 404), ("POST", "nothing", 404), ("PUT", "files", 405), ("GET", "files/", 404)):
        answer = bob.ask(method, path)
        assert (answer.status_code, set(answer.json()["error"])) == (status, {"message", "type", "param", "code"}), path
    assert sorted(bob.ask("PUT", "files")["Allow"].split(", ")) == ["GET", "POST"]


def test_what_is_not_supported_says_so(cast: Cast) -> None:
    bob = program(cast.team, cast.bob)
    graders, permissions = "fine_tuning/alpha/graders", "fine_tuning/checkpoints/ft:a:b::c/permissions"
    asked = [("POST", f"{graders}/run"), ("POST", f"{graders}/validate"), ("GET", permissions), ("DELETE", f"{permissions}/cp_1")]
    for method, path in asked:
        answer = bob.ask(method, path)
        assert (answer.status_code, answer.json()["error"]["code"], answer["x-should-retry"]) == (501, "not_implemented", "false")


def test_a_fault_of_ours_says_nothing_of_itself(cast: Cast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret words")

    monkeypatch.setattr("webapp.api.models_api.names_of_bases", broken)
    answer = program(cast.team, cast.bob).ask("GET", "models")
    assert (answer.status_code, "secret" in answer.content.decode()) == (500, False)
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret words" in caplog.text


def test_a_token_may_ask_so_often_in_a_minute(site: Site, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "api_requests_per_minute", 3)
    monkeypatch.setattr("webapp.api.limits.time.time", lambda: 1_000_010.0)
    bob, vera = program(cast.team, cast.bob), program(cast.team, cast.vera)
    answers = [bob.ask("GET", "files") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
    assert (answers[0]["x-ratelimit-limit-requests"], answers[0]["x-ratelimit-reset-requests"]) == ("3", "10.000s")
    assert (answers[3]["Retry-After"], answers[3].json()["error"]["type"]) == ("11", "rate_limit_error")
    assert vera.ask("GET", "files").status_code == 200
    monkeypatch.setattr("webapp.api.limits.time.time", lambda: 1_000_020.0)
    assert bob.ask("GET", "files").status_code == 200


def test_a_key_makes_two_requests_one(cast: Cast) -> None:
    BaseModel.objects.create(name="Tiny 1", source="hub", repository="acme/Tiny-1", state="ready", revision="1", licence="Apache-2.0")
    file = read_rows(stored(cast.team, cast.bob, lines(CHAT)))
    bob = program(cast.team, cast.bob)
    body = {"model": "acme/Tiny-1", "training_file": f"file-{file.pk.hex}"}
    first = bob.ask("POST", "fine_tuning/jobs", body, Idempotency_Key="a")
    second = bob.ask("POST", "fine_tuning/jobs", body, Idempotency_Key="a")
    assert first.status_code == second.status_code == 200
    assert (second.json(), second["idempotent-replayed"], Job.objects.count()) == (first.json(), "true", 1)
    other = bob.ask("POST", "fine_tuning/jobs", {**body, "seed": 1}, Idempotency_Key="a")
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    KeptAnswer.objects.update(status=None)
    busy = bob.ask("POST", "fine_tuning/jobs", body, Idempotency_Key="a")
    assert (busy.status_code, busy["x-should-retry"]) == (409, "true")
    refused = bob.ask("POST", "fine_tuning/jobs", {**body, "seed": -1}, Idempotency_Key="b")
    assert (refused.status_code, KeptAnswer.objects.filter(key="b").exists()) == (400, False)
    assert bob.ask("POST", "fine_tuning/jobs", body, Idempotency_Key="b").status_code == 200


def test_the_document_needs_no_token(client: Client) -> None:
    answer = client.get("/v1/openapi.json")
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    document = json.loads(answer.content)
    assert document["openapi"].startswith("3.")
    operation = document["paths"]["/v1/fine_tuning/jobs"]["post"]
    assert {"200", "400", "401", "403", "404", "429"} <= set(operation["responses"])
    assert "createFineTuningJob-retrieveFineTuningJob" in operation["responses"]["200"]["links"]
