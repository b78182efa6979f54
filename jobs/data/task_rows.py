"""Rows of tasks other than writing: how columns become records, which layouts serve which task, and what of a row is shown.

Each task has one shape of record:

- `sequence_classification`: `{"text", ("text_b"), "label"}`
- `regression`: `{"text", ("text_b"), "number"}`
- `question_answering`: `{"question", "context", "answers": [{"text", "answer_start"}, ...]}`, no answers where the context has none
- `multiple_choice`: `{"question", "choices": [text, ...], "answer": index, ("context")}`
- `seq2seq_lm`: `{"prompt", "completion"}`

Rows in a layout for writing serve too where they say the same (`for_task`): a chat whose answer is its label, an answer among choices.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from jobs.data.cells import BadRowError, joined, label_in, number_in, text_in, whole
from jobs.data.rows import Problem, Record, Row, kind_of, problem
from jobs.spec import Format, Mapping, Task

# The layouts whose rows serve a task.
LAYOUTS: dict[Task, tuple[Format, ...]] = {
    "causal_lm": ("messages", "sharegpt", "alpaca", "prompt_completion", "classification", "text"),
    "sequence_classification": ("sequence_classification", "classification", "messages"),
    "regression": ("regression",),
    "question_answering": ("question_answering",),
    "multiple_choice": ("multiple_choice", "prompt_completion", "messages"),
    "seq2seq_lm": ("prompt_completion", "alpaca", "messages", "sharegpt", "classification"),
}


def _classification(value: dict[str, Any], mapping: Mapping) -> Record:
    return {**_texts(value, mapping), "label": label_in(value, mapping.columns["label"])}


def _regression(value: dict[str, Any], mapping: Mapping) -> Record:
    return {**_texts(value, mapping), "number": number_in(value, mapping.columns["number"])}


def _texts(value: dict[str, Any], mapping: Mapping) -> Record:
    second = mapping.columns.get("text_b")
    return {"text": text_in(value, mapping.columns["text"]), **({"text_b": text_in(value, second)} if second else {})}


def _question_answering(value: dict[str, Any], mapping: Mapping) -> Record:
    columns = mapping.columns
    context = text_in(value, columns["context"])
    return {"question": text_in(value, columns["question"]), "context": context, "answers": _answers(value, columns["answers"], context)}


def _answers(value: dict[str, Any], column: str, context: str) -> list[dict[str, Any]]:
    """The answers of a cell, as lists side by side (SQuAD on the Hub) or as a list of objects (SQuAD's own files), each where it says."""

    def refuse(reason: str) -> BadRowError:
        return BadRowError("answers_wrong", field=column, reason=reason)

    cell = _opened(value.get(column))
    if cell is None:
        raise BadRowError("field_missing", field=column)
    if isinstance(cell, dict):
        texts, starts = _opened(cell.get("text")), _opened(cell.get("answer_start"))
        if not (isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)):
            raise refuse("holds no two lists of one length, 'text' and 'answer_start'")
        cell = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(cell, list):
        raise refuse(f"holds {kind_of(cell)}")
    found = []
    for number, answer in enumerate(cell, 1):
        text, start = (answer.get("text"), answer.get("answer_start")) if isinstance(answer, dict) else (None, None)
        if not isinstance(text, str) or not text.strip() or isinstance(start, bool) or not isinstance(start, int):
            raise refuse(f"has no text and answer_start in answer {number}")
        if start < 0 or context[start : start + len(text)] != text:
            raise refuse(f"says that answer {number}, '{text[:40]}', begins at character {start} of the context, and it does not")
        found.append({"text": whole(text), "answer_start": start})
    return found


def _multiple_choice(value: dict[str, Any], mapping: Mapping) -> Record:
    columns = mapping.columns
    choices = choices_in(value, columns["choices"])
    record: Record = {"question": text_in(value, columns["question"]), "choices": choices}
    record["answer"] = _chosen(value, columns["answer"], choices)
    if columns.get("context"):
        record["context"] = text_in(value, columns["context"])
    return record


def choices_in(value: dict[str, Any], column: str) -> list[str]:
    """The texts to choose from: at least two, none blank. Raises `BadRowError`."""
    cell = _opened(value.get(column))
    if cell is None:
        raise BadRowError("field_missing", field=column)
    if not isinstance(cell, list) or not all(isinstance(text, str) and text.strip() for text in cell):
        raise BadRowError("choices_wrong", field=column, reason="holds no list of texts")
    if len(cell) < 2:
        raise BadRowError("choices_wrong", field=column, reason=f"holds {len(cell)} texts")
    return [whole(text).strip() for text in cell]


def _chosen(value: dict[str, Any], column: str, choices: list[str]) -> int:
    """The right choice's place from 0: by number, by text, or by letter, looked for in this order."""
    cell = value.get(column)
    if cell is None:
        raise BadRowError("field_missing", field=column)
    if isinstance(cell, int) and not isinstance(cell, bool) and 0 <= cell < len(choices):
        return cell
    if isinstance(cell, str):
        words = cell.strip()
        if choices.count(words) == 1:
            return choices.index(words)
        if words.isdecimal() and int(words) < len(choices):
            return int(words)
        if len(words) == 1 and "A" <= words.upper() < chr(ord("A") + len(choices)):
            return ord(words.upper()) - ord("A")
    found = f"'{cell[:40]}'" if isinstance(cell, str) else f"{cell}" if isinstance(cell, int) else kind_of(cell)
    raise BadRowError("choice_wrong", field=column, found=found, count=len(choices))


def _opened(cell: Any) -> Any:
    """What a cell holds, also where it is written as JSON text (CSV, Parquet)."""
    if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


CONVERTERS: dict[Format, Callable[[dict[str, Any], Mapping], Record]] = {
    "sequence_classification": _classification,
    "regression": _regression,
    "question_answering": _question_answering,
    "multiple_choice": _multiple_choice,
}


def for_task(record: Record, task: Task, row: Row) -> Record | Problem:
    """A record of any layout of `LAYOUTS[task]` in the task's own shape, or why `row` does not serve."""
    try:
        return _SHAPES[task](record) if task in _SHAPES else record
    except _UnfitError as unfit:
        return problem("row_unfit", row, reason=str(unfit), task=task)


class _UnfitError(Exception):
    """Why a record does not serve a task, as a clause."""


def _as_classification(record: Record) -> Record:
    if "messages" not in record:
        return record
    if "label" not in record:
        raise _UnfitError("the chat has no label")
    return {"text": _asked(record, "user"), "label": record["label"]}


def _as_choice(record: Record) -> Record:
    if "question" in record:
        return record
    if "choices" not in record:
        raise _UnfitError("there are no choices")
    question, answer = (record["prompt"], record["completion"]) if "prompt" in record else (_asked(record), _last(record))
    return {"question": question, "choices": record["choices"], "answer": record["choices"].index(answer.strip())}


def _as_pair(record: Record) -> Record:
    if "prompt" in record:
        return {"prompt": record["prompt"], "completion": record["completion"]}
    return {"prompt": _asked(record), "completion": _last(record)}


def _asked(record: Record, *roles: str) -> str:
    """What stands before the last answer (of these roles alone, where any are named)."""
    turns = record["messages"]
    text = joined(*(turn["content"] for turn in turns[: _place(turns)] if not roles or turn["role"] in roles))
    if not text:
        raise _UnfitError("nothing stands before the answer")
    return text


def _last(record: Record) -> str:
    turns = record["messages"]
    return str(turns[_place(turns)]["content"])


def _place(turns: list[dict[str, Any]]) -> int:
    return max(place for place, turn in enumerate(turns) if turn["role"] == "assistant")


_SHAPES: dict[Task, Callable[[Record], Record]] = {
    "sequence_classification": _as_classification,
    "multiple_choice": _as_choice,
    "seq2seq_lm": _as_pair,
}


def parts(record: Record) -> list[dict[str, Any]] | None:
    """A record of one of these shapes as what is shown of it (`jobs.data.convert.parts`); None where it is one for writing.

    A context with answers has `marks`, the characters of each as [start, end]; of choices the right one is the trained one.
    """
    answers: list[str] = []
    if "answers" in record or ("choices" in record and "question" in record):
        names, answers = ("context", "question"), [answer["text"] for answer in record.get("answers", ())]
    elif "text" in record and ("label" in record or "number" in record):
        names, answers = ("text", "text_b"), [str(record["label"] if "label" in record else f"{record['number']:g}")]
    else:
        return None
    shown = [{"role": name, "content": record[name], "trained": False} for name in names if name in record]
    if "answers" in record:
        shown[0]["marks"] = [[one["answer_start"], one["answer_start"] + len(one["text"])] for one in record["answers"]]
    choices = enumerate(record.get("choices", ()))
    shown += [{"role": "choice", "content": text, "trained": number == record["answer"]} for number, text in choices]
    return shown + [{"role": "answer", "content": text, "trained": True} for text in answers]
