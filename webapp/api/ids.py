"""Ids of the API: a prefix that says what kind of thing it is, and the thing's UUID in 32 hexadecimal digits."""

from __future__ import annotations

from uuid import UUID

from webapp.api.errors import ApiError

_KINDS = {"file-": "File", "upload_": "Upload", "part_": "Part", "ftjob-": "FineTuningJob"}
_HEX = frozenset("0123456789abcdef")


def parse(prefix: str, text: str) -> UUID:
    """The UUID of an id. Raises `ApiError` 404: what has no such id is not there."""
    digits = text.removeprefix(prefix)
    if not text.startswith(prefix) or len(digits) != 32 or not _HEX.issuperset(digits):
        raise no_such(prefix, text)
    return UUID(digits)


def no_such(prefix: str, text: str) -> ApiError:
    """The refusal of an id that names nothing the caller can see."""
    return ApiError(404, f"No such {_KINDS.get(prefix, 'object')}: {text[:100]}", code="not_found")
