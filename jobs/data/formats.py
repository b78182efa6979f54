"""Layouts: which one the columns of a file speak for, and whether a mapping chosen by hand fits the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jobs.data import names
from jobs.data.rows import Problem, problem
from jobs.errors import UserError
from jobs.spec import Format, Mapping

# Fields of each layout: those it needs, those it may have.
FIELDS: dict[Format, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "messages": (("messages",), ("label", "choices")),
    "sharegpt": (("conversations",), ("from", "value", "system")),
    "alpaca": (("instruction", "output"), ("input", "system")),
    "prompt_completion": (("prompt", "completion"), ("choices",)),
    "classification": (("text", "label"), ()),
    "text": (("text",), ()),
    "sequence_classification": (("text", "label"), ("text_b",)),
    "regression": (("text", "number"), ("text_b",)),
    "question_answering": (("question", "context", "answers"), ()),
    "multiple_choice": (("question", "choices", "answer"), ("context",)),
}
# Layouts whose texts stand as they are.
NO_INSTRUCTION: tuple[Format, ...] = ("text", "sequence_classification", "regression", "question_answering", "multiple_choice")
# Fields that name a key within a message, not a column.
KEYS_WITHIN = ("from", "value")
CERTAIN_ENOUGH = 0.6
_MAPPING: TypeAdapter[Mapping] = TypeAdapter(Mapping)

RawRow = dict[str, Any]


@dataclass(frozen=True)
class Suggestion:
    """A mapping that fits the columns, how sure we are (0 to 1), why, and what speaks against it."""

    mapping: Mapping
    confidence: float
    reason: str
    warnings: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The suggestion as it crosses a process."""
        return {
            "mapping": mapping_to_json(self.mapping),
            "confidence": self.confidence,
            "reason": self.reason,
            "warnings": [warning.to_json() for warning in self.warnings],
        }


def mapping_to_json(mapping: Mapping) -> dict[str, Any]:
    """A mapping as `mapping_from_json` reads it."""
    return {"format": mapping.format, "columns": dict(mapping.columns), "instruction": mapping.instruction}


def mapping_from_json(body: Any) -> Mapping | None:
    """Reads a mapping; None and {} mean: recognise it. Raises `UserError("mapping_invalid")`."""
    if not body:
        return None
    try:
        return _MAPPING.validate_json(json.dumps(body), strict=True)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError("mapping_invalid", reason=f"'{field}': {first['msg'].lower()}", where={"field": f"mapping.{field}"}) from None


def check_mapping(mapping: Mapping, columns: Sequence[str], *, optional: bool = True) -> None:
    """Raises `UserError("mapping_invalid")` where the mapping lacks a field, has one too many, or names a column that is not there
    (with `optional` false, only the columns of the fields that the layout needs are looked for).
    """
    needed, allowed = FIELDS[mapping.format]

    def refuse(reason: str, field: str) -> None:
        raise UserError("mapping_invalid", reason=reason, where={"field": f"mapping.columns.{field}"})

    for field in needed:
        if not mapping.columns.get(field):
            refuse(f"no column is chosen for '{field}'", field)
    for field, column in mapping.columns.items():
        if field not in (*needed, *allowed):
            refuse(f"the layout {mapping.format} has no field '{field}'", field)
        if column and field not in KEYS_WITHIN and column not in columns and (optional or field in needed):
            refuse(f"there is no column '{column}'; the file has {', '.join(columns[:20]) or 'none'}", field)
    if mapping.format in NO_INSTRUCTION and mapping.instruction:
        layout = "plain text" if mapping.format == "text" else f"the layout {mapping.format}"
        raise UserError("mapping_invalid", reason=f"{layout} takes no instruction", where={"field": "mapping.instruction"})


def recognise(columns: Sequence[str], rows: Sequence[RawRow]) -> Mapping:
    """The mapping to use without asking. Raises `UserError("format_unknown")` where none is certain enough."""
    best = next(iter(detect(columns, rows)), None)
    if best is None or best.confidence < CERTAIN_ENOUGH:
        raise UserError("format_unknown", columns=", ".join(columns[:20]) or "(none)")
    return best.mapping


def detect(columns: Sequence[str], rows: Sequence[RawRow]) -> list[Suggestion]:
    """The layouts that fit, the likeliest first; `rows` are the first rows of the file as they are."""
    found = [suggestion for finder in _FINDERS if (suggestion := finder(columns, rows)) is not None]
    against = _unwanted(columns, rows)
    if against:
        found = [Suggestion(item.mapping, round(item.confidence * 0.8, 2), item.reason, against) for item in found]
    best: dict[Format, Suggestion] = {}
    for suggestion in sorted(found, key=lambda item: -item.confidence):
        best.setdefault(suggestion.mapping.format, suggestion)
    return list(best.values())


def _named(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    lowered = {column.strip().lower(): column for column in reversed(columns)}
    return next((lowered[name] for name in wanted if name in lowered), None)


def _values(rows: Sequence[RawRow], column: str) -> list[Any]:
    return [row[column] for row in rows if row.get(column) is not None]


def _is_text(rows: Sequence[RawRow], column: str | None) -> bool:
    """Whether most cells of the column are plain values (one bad row hides no layout); without rows its name alone counts."""
    if column is None:
        return False
    values = _values(rows, column)
    return sum(isinstance(value, str | int | float) for value in values) * 2 > len(values) or not values


def turns_of(value: Any) -> list[Any] | None:
    """The list (of turns, of choices) that a cell holds, also where it is written as JSON text (CSV, Parquet); None where it holds none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _turn_keys(rows: Sequence[RawRow], column: str) -> tuple[str, str] | None:
    """The keys of role and text within the messages of a column, or None where it holds no messages."""
    for value in _values(rows, column):
        turns = turns_of(value)
        if turns and isinstance(turns[0], dict):
            role = next((key for key in names.ROLE_KEYS if key in turns[0]), None)
            text = next((key for key in names.VALUE_KEYS if key in turns[0]), None)
            if role and text:
                return role, text
    return None


def _find_chat(columns: Sequence[str], rows: Sequence[RawRow]) -> Suggestion | None:
    known = [column for column in columns if column.strip().lower() in names.CONVERSATIONS]
    for column in known + [column for column in columns if column not in known]:
        keys = _turn_keys(rows, column)
        if keys is None:
            continue
        sure = 0.98 if column in known else 0.8
        if keys == ("role", "content"):
            fields = {"messages": column}
            label = _named(columns, ("label",))
            if label and all(isinstance(value, str) for value in _values(rows, label)):
                fields["label"] = label
            fields |= _choices(columns, rows, column)
            return Suggestion(Mapping("messages", fields), sure, f"'{column}' holds messages with role and content")
        fields = {"conversations": column, "from": keys[0], "value": keys[1]}
        system = _named(columns, names.SYSTEM)
        if system and _is_text(rows, system):
            fields["system"] = system
        return Suggestion(Mapping("sharegpt", fields), sure, f"'{column}' holds turns with '{keys[0]}' and '{keys[1]}'")
    return None


def _choices(columns: Sequence[str], rows: Sequence[RawRow], answers: str) -> dict[str, str]:
    """The field `choices`, where a column of that name holds lists of texts with the row's own answer among them."""
    column = _named(columns, names.CHOICES)
    given = [(turns_of(row[column]), _answer(row.get(answers))) for row in rows if row.get(column) is not None] if column else []
    fits = [texts is not None and str(right).strip() in {str(text).strip() for text in texts} for texts, right in given]
    return {"choices": str(column)} if sum(fits) * 2 > len(fits) else {}


def _answer(value: Any) -> Any:
    """The answer that a cell holds: itself, or the text of the last turn where it holds turns."""
    turns = turns_of(value)
    return turns[-1].get("content") if turns and isinstance(turns[-1], dict) else value


def _find_alpaca(columns: Sequence[str], rows: Sequence[RawRow]) -> Suggestion | None:
    instruction, output = _named(columns, names.INSTRUCTION), _named(columns, names.OUTPUT)
    if not (_is_text(rows, instruction) and _is_text(rows, output)):
        return None
    fields = {"instruction": str(instruction), "output": str(output)}
    for field, wanted in (("input", names.INPUT), ("system", names.SYSTEM)):
        column = _named(columns, wanted)
        if column and column not in fields.values() and _is_text(rows, column):
            fields[field] = column
    return Suggestion(Mapping("alpaca", fields), 0.96, f"columns '{instruction}' and '{output}', as in Alpaca")


def _find_prompt(columns: Sequence[str], rows: Sequence[RawRow]) -> Suggestion | None:
    prompt, completion = _named(columns, names.PROMPT), _named(columns, names.COMPLETION)
    if prompt == completion or prompt is None or completion is None:
        return None
    chat = _turn_keys(rows, prompt) == _turn_keys(rows, completion) == ("role", "content")
    if not chat and not (_is_text(rows, prompt) and _is_text(rows, completion)):
        return None
    sure = 0.97 if (prompt.lower(), completion.lower()) == ("prompt", "completion") else 0.9
    fields = {"prompt": prompt, "completion": completion}
    fields |= _choices(columns, rows, completion)
    return Suggestion(Mapping("prompt_completion", fields), sure, f"'{prompt}' looks like the question, '{completion}' like the answer")


def _find_labelled(columns: Sequence[str], rows: Sequence[RawRow]) -> Suggestion | None:
    text, label = _named(columns, names.TEXT), _named(columns, names.LABEL)
    if text is None or label is None or text == label or not (_is_text(rows, text) and _is_text(rows, label)):
        return None
    short = all(len(str(value)) <= 60 for value in _values(rows, label))
    return Suggestion(
        Mapping("classification", {"text": text, "label": label}), 0.93 if short else 0.5, f"'{label}' looks like the label of '{text}'"
    )


def _find_text(columns: Sequence[str], rows: Sequence[RawRow]) -> Suggestion | None:
    text = _named(columns, names.TEXT)
    if text is None and len(columns) == 1:
        text = columns[0]
    if text is None or not _is_text(rows, text):
        return None
    alone = len(columns) == 1
    sure = (0.9 if text.lower() == "text" else 0.65) if alone else 0.6 if text.lower() == "text" else 0.4
    return Suggestion(Mapping("text", {"text": text}), sure, f"'{text}' holds text" + (", and there is no other column" if alone else ""))


def _find_pair(columns: Sequence[str], rows: Sequence[RawRow]) -> Suggestion | None:
    """Two columns of text with names that say nothing: a label repeats and is short, an answer is not."""
    plain = [column for column in columns if _values(rows, column) and all(isinstance(value, str) for value in _values(rows, column))]
    if len(plain) != 2:
        return None
    for label, text in ((plain[1], plain[0]), (plain[0], plain[1])):
        values = [value.strip() for value in _values(rows, label)]
        if len(values) >= 6 and len(set(values)) * 2 <= len(values) and all(len(value) <= 40 for value in values):
            reason = f"'{label}' holds few different short texts, '{text}' many"
            return Suggestion(Mapping("classification", {"text": text, "label": label}), 0.5, reason)
    fields = {"prompt": plain[0], "completion": plain[1]}
    return Suggestion(Mapping("prompt_completion", fields), 0.3, f"two columns of text; is '{plain[1]}' the answer to '{plain[0]}'?")


_FINDERS: tuple[Callable[[Sequence[str], Sequence[RawRow]], Suggestion | None], ...] = (
    _find_chat, _find_alpaca, _find_prompt, _find_labelled, _find_text, _find_pair,
)  # fmt: skip


def _unwanted(columns: Sequence[str], rows: Sequence[RawRow]) -> tuple[Problem, ...]:
    """Rows made for preference training hold answers that the model should not give."""
    lowered = {column.lower(): column for column in columns}
    if "chosen" in lowered and "rejected" in lowered:
        return (problem("preference_pairs", severity="warning"),)
    label = lowered.get("label")
    values = _values(rows, label) if label else []
    if label and values and all(isinstance(value, bool) for value in values):
        return (problem("unwanted_answers", severity="warning", name=label, what="wanted and unwanted answers by true and false"),)
    return ()
