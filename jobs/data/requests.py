"""Requests on standard input: one JSON object, its fields checked one by one."""

from __future__ import annotations

import json
import sys
from typing import Any

from jobs.data.formats import mapping_from_json
from jobs.errors import UserError
from jobs.spec import Mapping


def read_request() -> dict[str, Any]:
    """The object on standard input; {} where there is none or a person sits there. Raises `UserError("request_invalid")`."""
    text = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    if not text.strip():
        return {}
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise UserError("request_invalid", reason=f"it is not JSON: {failure}") from None
    if not isinstance(body, dict):
        raise UserError("request_invalid", reason="it is not a JSON object")
    return body


class Fields:
    """Typed reading of a request. Every method raises `UserError("request_invalid")` that names the field."""

    def __init__(self, body: dict[str, Any], *, known: tuple[str, ...]) -> None:
        self._body = body
        unknown = sorted(body.keys() - set(known))
        if unknown:
            raise UserError("request_invalid", reason=f"unknown field '{unknown[0]}'; known are {', '.join(known)}")

    def _refuse(self, name: str, wanted: str) -> UserError:
        return UserError("request_invalid", reason=f"'{name}' is not {wanted}", where={"field": name})

    def text(self, name: str) -> str:
        """A text; "" where it is absent or null."""
        value = self._body.get(name)
        if value is not None and not isinstance(value, str):
            raise self._refuse(name, "a text")
        return value or ""

    def texts(self, name: str, keys: tuple[str, ...]) -> dict[str, str]:
        """An object of texts by the `keys` allowed, without those that are null or empty."""
        value = self._body.get(name) or {}
        if not isinstance(value, dict) or not value.keys() <= set(keys) or not all(isinstance(one, str | None) for one in value.values()):
            raise self._refuse(name, f"an object with texts for {', '.join(keys)}")
        return {key: text for key, text in value.items() if text}

    def flag(self, name: str) -> bool:
        """True or false; false where it is absent."""
        value = self._body.get(name, False)
        if not isinstance(value, bool):
            raise self._refuse(name, "true or false")
        return value

    def share(self, name: str, default: float) -> float:
        """A number from 0 to below 1."""
        value = self._body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise self._refuse(name, "a number from 0 to below 1")
        return float(value)

    def count(self, name: str, default: int, *, most: int) -> int:
        """A whole number from 0 to `most`."""
        value = self._body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self._refuse(name, f"a whole number from 0 to {most}")
        return value

    def mapping(self) -> Mapping | None:
        """The mapping, or None where it is to be recognised."""
        return mapping_from_json(self._body.get("mapping"))
