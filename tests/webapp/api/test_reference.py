"""The document and its page: every operation, every refusal it can give, links that lead somewhere, nothing from elsewhere."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client

from tests.webapp.cast import Cast
from webapp.api.reference import Field, operations


@pytest.fixture
def document(db: None) -> dict[str, Any]:
    return dict(json.loads(Client().get("/v1/openapi.json").content))


def each_operation(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {raw["operationId"]: raw for methods in document["paths"].values() for raw in methods.values()}


def test_the_name_of_an_operation_is_its_own(document: dict[str, Any]) -> None:
    assert len(each_operation(document)) == sum(len(methods) for methods in document["paths"].values())


def test_links_lead_to_operations_by_their_own_parameters(document: dict[str, Any]) -> None:
    known = each_operation(document)
    led: dict[str, set[str]] = {}
    for name, raw in known.items():
        for code, answer in raw["responses"].items():
            for link in answer.get("links", {}).values():
                target = known[link["operationId"]]
                assert set(link["parameters"]) == {one["name"] for one in target["parameters"] if one["in"] == "path"}, (name, code)
                assert str(code).startswith("2")
                led.setdefault(name, set()).add(link["operationId"])
    assert led["createFile"] == {"retrieveFile", "downloadFile", "deleteFile"}
    assert led["createUpload"] == {"addUploadPart", "completeUpload", "cancelUpload"}
    assert "pauseFineTuningJob" in led["createFineTuningJob"]


def test_every_operation_names_its_refusals_and_asks_for_a_token(document: dict[str, Any]) -> None:
    for name, raw in each_operation(document).items():
        assert raw["security"], name
        assert {"400", "401", "403", "404", "429", "500"} <= set(raw["responses"]), name
        for code, answer in raw["responses"].items():
            if int(code) >= 400:
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorObject"}, (name, code)
    assert {scheme["scheme"] for scheme in document["components"]["securitySchemes"].values()} == {"bearer"}


def test_every_reference_in_the_document_is_there(document: dict[str, Any]) -> None:
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named == named & set(document["components"]["schemas"])


def test_the_page_shows_every_operation_and_nothing_from_elsewhere(cast: Cast, document: dict[str, Any]) -> None:
    answer = cast.client(cast.vera).get("/api/")
    page = answer.content.decode()
    for path, methods in document["paths"].items():
        for method, raw in methods.items():
            assert f'id="{raw["operationId"]}"' in page
            assert f"<code>{method.upper()} {path}</code>" in page
    assert len(re.findall(r'<details class="card"', page)) == len(each_operation(document))
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert "OpenAI(base_url=&quot;" in page or 'OpenAI(base_url="' in page
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="([^"]+)"', page)
    assert loaded
    assert all(address.startswith("/") for address in loaded), loaded
    assert "unsafe-inline" not in answer["Content-Security-Policy"]


def test_the_page_is_for_people_who_are_signed_in(db: None) -> None:
    answer = Client().get("/api/")
    assert (answer.status_code, answer["Location"]) == (302, "/login/?next=/api/")


def test_fields_are_resolved_with_what_is_in_them() -> None:
    small = {
        "components": {
            "schemas": {
                "Asked": {
                    "required": ["model"],
                    "properties": {
                        "model": {"type": "string", "description": "Which."},
                        "method": {"anyOf": [{"$ref": "#/components/schemas/Method"}, {"type": "null"}]},
                        "tags": {"type": "array", "items": {"type": "string"}},
                    },
                },
                "Method": {"properties": {"type": {"const": "supervised"}, "again": {"$ref": "#/components/schemas/Method"}}},
            }
        },
        "paths": {
            "/v1/jobs": {
                "post": {
                    "operationId": "createJob",
                    "summary": "Create",
                    "description": "Makes one.",
                    "tags": ["Jobs"],
                    "parameters": [{"name": "after", "in": "query", "schema": {"type": "string", "enum": ["a", "b"]}}],
                    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Asked"}}}},
                    "responses": {"200": {"description": "OK"}, "404": {"description": "Not there."}},
                }
            }
        },
    }
    ((tag, (operation,)),) = operations(small).items()
    assert (tag, operation.method, operation.path, operation.refusals, operation.gives) == (
        "Jobs", "POST", "/v1/jobs", [("404", "Not there.")], [],
    )  # fmt: skip
    # A thing within itself is shown three deep.
    assert [(field.name, field.place, field.type, field.required, field.depth) for field in operation.takes] == [
        ("after", "query", '"a" | "b"', False, 0),
        ("model", "body", "string", True, 0),
        ("method", "body", "any | null", False, 0),
        ("type", "body", '"supervised"', False, 1),
        ("again", "body", "any", False, 1),
        ("type", "body", '"supervised"', False, 2),
        ("again", "body", "any", False, 2),
        ("tags", "body", "array of string", False, 0),
    ]
    assert operation.takes[1] == Field("model", "body", "string", True, "Which.")
