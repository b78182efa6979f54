"""Which columns of a file are those of a task, where nobody has said so: the task decides, other files are recognised as ever."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.data import names
from jobs.data.formats import CERTAIN_ENOUGH, FIELDS, RawRow, detect
from jobs.data.task_rows import LAYOUTS
from jobs.errors import UserError
from jobs.spec import Format, Mapping, Task

# What the columns of a task's own layout are called in the wild; the first name found is taken.
NAMES: dict[Format, dict[str, tuple[str, ...]]] = {
    "sequence_classification": {
        "text": ("text", "sentence1", "text_a", "premise", "question1", "question", *names.TEXT),
        "text_b": ("text_b", "text2", "sentence2", "hypothesis", "question2", "sentence"),
        "label": names.LABEL,
    },
    "regression": {
        "text": ("text", "sentence1", "text_a", "premise", *names.TEXT),
        "text_b": ("text_b", "text2", "sentence2", "hypothesis"),
        "number": ("number", "score", "value", "rating", "similarity", "stars", "label", "labels", "target"),
    },
    "question_answering": {"question": ("question",), "context": ("context", "passage"), "answers": ("answers", "answer")},
    "multiple_choice": {
        "question": ("question", "prompt", "query"),
        "choices": ("choices", "options", "endings"),
        "answer": ("answer", "label", "correct", "target", "completion", "answer_index"),
        "context": ("context", "passage"),
    },
}  # fmt: skip


def recognise_for(task: Task, columns: Sequence[str], rows: Sequence[RawRow]) -> Mapping:
    """The mapping for a task: of its own layout where its columns are there, else the likeliest one that serves it.

    Raises `UserError("columns_unfit")`.
    """
    own = own_mapping(task, columns)
    if own is not None:
        return own
    fits = [
        found.mapping for found in detect(columns, rows) if found.mapping.format in LAYOUTS[task] and found.confidence >= CERTAIN_ENOUGH
    ]
    if fits:
        return fits[0]
    needed = " or ".join(", ".join(FIELDS[layout][0]) for layout in LAYOUTS[task])
    raise UserError("columns_unfit", columns=", ".join(columns[:20]) or "(none)", task=task, needed=needed)


def own_mapping(task: Task, columns: Sequence[str]) -> Mapping | None:
    """The mapping of the task's own layout, where the file has columns of those names."""
    layout = LAYOUTS[task][0]
    if layout not in NAMES:
        return None
    lowered = {column.strip().lower(): column for column in reversed(columns)}
    found: dict[str, str] = {}
    for field, wanted in NAMES[layout].items():
        column = next((lowered[name] for name in wanted if name in lowered and lowered[name] not in found.values()), None)
        if column is not None:
            found[field] = column
    return Mapping(layout, found) if all(field in found for field in FIELDS[layout][0]) else None
