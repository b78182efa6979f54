"""What a person sees of a file before the mapping is settled: `sniff` (what it is) and `preview` (what its rows become)."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from jobs.data.convert import parts, record_warnings, to_record
from jobs.data.formats import detect, mapping_to_json
from jobs.data.records import mapping_for
from jobs.data.rows import Limits, Problem, Row, kind_of
from jobs.data.sources import HEAD_ROWS, Source, open_rows
from jobs.data.task_recognition import own_mapping
from jobs.spec import TASKS, Mapping, Task

SAMPLE_ROWS = 5
SHOWN_CHARACTERS = 4000
SHOWN_ITEMS = 50


def sniff(path: Path, *, suffix: str = "", limits: Limits | None = None) -> dict[str, Any]:
    """What a file is: `facts`, file-wide `warnings`, the layouts that fit (`suggestions`, best first), the `problems` among the first 50
    rows, and the first of them (`sample`); `tasks` has a mapping for each task other than writing whose columns the file has and whose rows
    mostly are as they should be. Raises `UserError` where the file as a whole cannot be used.
    """
    source = open_rows(path, limits, suffix=suffix)
    head = list(islice(source, HEAD_ROWS))
    rows = [item for item in head if isinstance(item, Row)]
    return {
        "facts": source.facts(),
        "warnings": [warning.to_json() for warning in source.warnings],
        "rows_seen": len(head),
        "sample": [{"line": row.line, "value": _shown(row.value)} for row in rows[:SAMPLE_ROWS]],
        "problems": [item.to_json() for item in head if isinstance(item, Problem)],
        "tasks": {task: mapping_to_json(mapping) for task in TASKS if (mapping := _mapping_of(task, source, rows)) is not None},
        "suggestions": [suggestion.to_json() for suggestion in detect(source.columns, [row.value for row in rows])],
    }


def _mapping_of(task: Task, source: Source, rows: list[Row]) -> Mapping | None:
    mapping = own_mapping(task, source.columns)
    if mapping is None:
        return None
    good = sum(not isinstance(to_record(row, mapping), Problem) for row in rows)
    return mapping if good * 2 > len(rows) else None


def preview(
    path: Path, mapping: Mapping | None, *, rows: int = SAMPLE_ROWS, skip: int = 0, suffix: str = "", limits: Limits | None = None
) -> dict[str, Any]:
    """Rows `skip` to `skip + rows` as they will be trained on: `parts` (role, content, trained; of a context with answers `marks`, their
    [start, end] within the content) or the `problem` of each.

    `end` says that the file has no more rows. Raises `UserError` where the file or the mapping cannot be used.
    """
    source = open_rows(path, limits, suffix=suffix)
    mapping = mapping_for(source, mapping)
    items = list(islice(source, skip, skip + rows + 1))
    shown = []
    for item in items[:rows]:
        record = to_record(item, mapping) if isinstance(item, Row) else item
        if isinstance(record, Problem):
            shown.append({"line": item.line, "problem": record.to_json()})
            continue
        warnings = record_warnings(record, item) if isinstance(item, Row) else []
        shown.append(
            {
                "line": item.line,
                "parts": [_shortened(part) for part in parts(record)],
                "label": record.get("label"),
                "warnings": [warning.to_json() for warning in warnings],
            }
        )
    return {"mapping": mapping_to_json(mapping), "numbers_count": source.unit, "rows": shown, "end": len(items) <= rows}


def _shortened(part: dict[str, Any]) -> dict[str, Any]:
    """A part small enough for a page. Of a long context, so much around its first answer: what is marked must be seen."""
    text, marks = part["content"], part.get("marks")
    if not marks or len(text) <= SHOWN_CHARACTERS:
        return part | {"content": _cut(text)}
    first = max(0, min(marks[0][0] - SHOWN_CHARACTERS // 2, len(text) - SHOWN_CHARACTERS))
    last, before = first + SHOWN_CHARACTERS, "… " if first else ""
    within = [[start - first + len(before), min(end, last) - first + len(before)] for start, end in marks if first <= start < last]
    return part | {"content": f"{before}{text[first:last]}… ({len(text):,} characters)", "marks": within}


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"


def _shown(value: Any) -> Any:
    """A value small enough for a page, and free of what JSON cannot hold."""
    if isinstance(value, str):
        # Zero characters and broken bytes are shown, not sent: databases and browsers choke on them.
        return _cut(value).replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_shown(str(key)): _shown(item) for key, item in islice(value.items(), 200)}
    if isinstance(value, list):
        return [_shown(item) for item in value[:SHOWN_ITEMS]]
    return value if value is None or isinstance(value, bool | int | float) else f"({kind_of(value)})"
