"""CSV that a spreadsheet opens as what it is: text that anybody may have chosen never becomes a formula."""

from __future__ import annotations

import re

# How a formula begins for one program or another: full-width forms, and what is skipped before the sign, included.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")


def harmless(text: str) -> str:
    """The text as a cell: one that would be taken for a formula gets an apostrophe before it."""
    return f"'{text}" if _FORMULA.match(text) else text
