"""JSON by a fast parser, for rows in which nothing is unusual; all others are left to the exact one (`jobs.data.json_rows`).

What msgspec takes, Python's parser takes too, with the same values (a test holds the two against each other), but for three things that we
refuse and it does not: a key that stands twice, a zero character, and a number of more than 300 digits.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

LONGEST_INTEGER = 300
_DECODE = msgspec.json.Decoder().decode
_ENCODE = msgspec.json.Encoder().encode
_DIGIT = re.compile("[0-9]")
_ENDLESS = re.compile(f"[0-9]{{{LONGEST_INTEGER + 1}}}")
# A quotation mark that is not written as one, so that the marks could not be counted.
_ZERO, _QUOTATION = "\\u0000", "\\u0022"


def decode(text: str) -> dict[str, Any] | None:
    """The object that `text` is; None where it is none, is refused, or is not usual enough to be judged here."""
    if "\\" in text and (_ZERO in text or _QUOTATION in text):
        return None
    try:
        value = _DECODE(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or _is_endless(text):
        return None
    # A key that stood twice is there once: written anew, the object has fewer quotation marks than the text.
    return value if _ENCODE(value).count(b'"') == text.count('"') else None


def encode(value: Any) -> bytes:
    """The value as UTF-8 without blanks, characters as they are. Raises `UnicodeEncodeError` for half a character."""
    return _ENCODE(value)


def _is_endless(text: str) -> bool:
    """Whether digits stand in a longer row than a number may. Such a row has a digit at every 300th place, which few texts have."""
    return _DIGIT.search(text[::LONGEST_INTEGER]) is not None and _ENDLESS.search(text) is not None
