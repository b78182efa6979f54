"""Single cells of a row as text and numbers, strictly: what is missing, empty, or of another kind is refused by name."""

from __future__ import annotations

import math
from typing import Any

from jobs.data.rows import kind_of


class BadRowError(Exception):
    """What is wrong with a row: a code of `jobs.errors.CATALOGUE` and what fills its words."""

    def __init__(self, code: str, **blanks: Any) -> None:
        super().__init__(code)
        self.code, self.blanks = code, blanks


def text_in(value: dict[str, Any], column: str, *, answer: bool = False, optional: bool = False) -> str:
    """A cell as text; numbers are written as they stand. Raises `BadRowError`."""
    cell = value.get(column)
    if cell is None and optional:
        return ""
    if cell is None:
        raise BadRowError("field_missing", field=column)
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise BadRowError("field_type", field=column, found=kind_of(cell))
    text = whole(str(cell))
    if not text.strip() and not optional:
        raise BadRowError("answer_empty" if answer else "text_empty", field=column)
    return text


def label_in(value: dict[str, Any], column: str) -> str:
    """A class: text without outer white space, a number as it stands, true and false as words. Raises `BadRowError`."""
    cell = value.get(column)
    return str(cell).lower() if isinstance(cell, bool) else text_in(value, column, answer=True).strip()


def number_in(value: dict[str, Any], column: str) -> float:
    """A finite number, also where it is written as text. Raises `BadRowError`."""
    cell = value.get(column)
    if cell is None:
        raise BadRowError("field_missing", field=column)
    try:
        found = math.nan if isinstance(cell, bool) or not isinstance(cell, str | int | float) else float(cell)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise BadRowError("number_wrong", field=column, found=f"'{cell[:40]}'" if isinstance(cell, str) else kind_of(cell))
    return found


def whole(text: str) -> str:
    """Refuses what could not be written again: it may come from a column of Parquet or from JSON within a cell, unchecked so far."""
    if "\x00" in text:
        raise BadRowError("text_broken", what="a text holds a zero character, which cannot be stored")
    try:
        # Half a character is none of ASCII's, and a text knows whether it is all ASCII.
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        raise BadRowError("text_broken", what="a text holds half of a character (a lone \\ud8.. or \\udc..)") from None
    return text


def joined(*parts: str) -> str:
    """The parts that are not blank, with an empty line between them."""
    return "\n\n".join(part for part in parts if part.strip())
