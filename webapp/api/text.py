"""Text that can be kept: PostgreSQL holds no NUL, neither in text nor in JSON, and no database half of a surrogate pair."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

NUL = "\x00"


def _can_be_kept(text: str) -> str:
    if NUL in text:
        raise ValueError("it holds the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_can_be_kept)]
