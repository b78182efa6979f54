"""Use case: the first rows of a draft as a mapping would make them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobs.data.formats import mapping_to_json
from jobs.spec import Mapping
from webapp.core.box import QUICK, run_in_box
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.create_upload import suffix_of

ROWS = 5


def preview(version: DatasetVersion, mapping: Mapping, *, skip: int = 0) -> dict[str, Any]:
    """What `python -m jobs preview` says of `ROWS` rows of the training file, after the first `skip`. Raises `BoxRefusal`.

    Each part has besides its `pieces`: its text cut where what is learned begins and ends, as (text, learned).
    """
    upload = version.train_upload
    request = {"mapping": mapping_to_json(mapping), "rows": ROWS, "skip": skip, "suffix": suffix_of(upload.filename)}
    readable = {upload.path: upload.filename}
    shown = run_in_box(["preview", str(upload.path), "--json"], request=request, readable=readable, limits=QUICK)
    for row in shown["rows"]:
        for part in row.get("parts", ()):
            part["pieces"] = [(part["content"], True)] if part["trained"] else pieces(part["content"], part.get("marks", ()))
    return shown


def pieces(text: str, marks: Iterable[list[int]]) -> list[tuple[str, bool]]:
    """A text cut at its `marks` ([start, end] in characters, in any order, perhaps one upon another), as (text, marked)."""
    found: list[tuple[str, bool]] = []
    place = 0
    for start, end in sorted(marks):
        if start > place:
            found.append((text[place:start], False))
        if end > max(start, place):
            found.append((text[max(start, place) : end], True))
            place = end
    return [*found, (text[place:], False)] if place < len(text) else found
