"""The API's document as a page shows it: operations by tag, each with what it takes and gives, references resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_DEEPEST = 3


@dataclass(frozen=True)
class Field:
    """A parameter, or a field of a body: `depth` is 1 for a field within another."""

    name: str
    place: str
    type: str
    required: bool
    words: str
    depth: int = 0


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked. `refusals` are the statuses with their words."""

    id: str
    method: str
    path: str
    title: str
    words: str
    takes: list[Field]
    gives: list[Field]
    refusals: list[tuple[str, str]]


def operations(document: dict[str, Any]) -> dict[str, list[Operation]]:
    """The operations of an OpenAPI document by tag, in the document's order."""
    found: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method, raw in methods.items():
            found.setdefault((raw.get("tags") or ["Other"])[0], []).append(_operation(document, path, method, raw))
    return found


def _operation(document: dict[str, Any], path: str, method: str, raw: dict[str, Any]) -> Operation:
    parameters = [
        Field(one["name"], one["in"], _type(document, one["schema"]), bool(one.get("required")), one["schema"].get("description", ""))
        for one in raw.get("parameters", [])
    ]
    body: dict[str, Any] = next((one["schema"] for one in raw.get("requestBody", {}).get("content", {}).values()), {})
    answers: list[dict[str, Any]] = [one for code, one in raw["responses"].items() if str(code) == "200"]
    given: dict[str, Any] = answers[0].get("content", {}).get("application/json", {}).get("schema", {}) if answers else {}
    return Operation(
        id=raw["operationId"],
        method=method.upper(),
        path=path,
        title=raw.get("summary", ""),
        words=raw.get("description", ""),
        takes=[*parameters, *_fields(document, body, "body")],
        gives=_fields(document, given, ""),
        refusals=[(str(code), one.get("description", "")) for code, one in raw["responses"].items() if not str(code).startswith("2")],
    )


def _fields(document: dict[str, Any], schema: dict[str, Any], place: str, depth: int = 0) -> list[Field]:
    whole = _resolved(document, schema)
    found: list[Field] = []
    for name, raw in whole.get("properties", {}).items():
        found.append(Field(name, place, _type(document, raw), name in whole.get("required", []), raw.get("description", ""), depth))
        inner = _object_in(document, raw)
        if inner is not None and depth + 1 < _DEEPEST:
            found += _fields(document, inner, place, depth + 1)
    return found


def _object_in(document: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any] | None:
    """The object that a field holds, alone, in a list, or where it is not null."""
    for one in (raw, raw.get("items", {}), *raw.get("anyOf", [])):
        whole = _resolved(document, one)
        if whole.get("properties"):
            return whole
    return None


def _type(document: dict[str, Any], raw: dict[str, Any]) -> str:
    whole = _resolved(document, raw)
    if "anyOf" in whole:
        return " | ".join(_type(document, one) for one in whole["anyOf"])
    if "enum" in whole:
        return " | ".join(f'"{value}"' for value in whole["enum"])
    if "const" in whole:
        return f'"{whole["const"]}"'
    kind = str(whole.get("type", "any"))
    return f"array of {_type(document, whole['items'])}" if kind == "array" and "items" in whole else kind


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref") or (schema["allOf"][0].get("$ref") if len(schema.get("allOf", [])) == 1 else None)
    if not reference:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    return found
