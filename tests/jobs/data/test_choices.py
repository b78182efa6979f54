"""Rows that carry their answers to choose from: recognised, kept through validation, refused where they cannot be scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.data.convert import to_record
from jobs.data.formats import detect, recognise
from jobs.data.records import read_records
from jobs.data.rows import Problem, Row
from jobs.data.validation import ValidationRequest, validate
from jobs.errors import UserError
from jobs.spec import Mapping

PAIR = {"prompt": "Sky?", "completion": " blue", "choices": ["red", "blue", "green"]}
CHAT = {
    "messages": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "blue"}],
    "choices": ["red", " blue", "green"],
}
PAIRS = Mapping("prompt_completion", {"prompt": "prompt", "completion": "completion", "choices": "choices"})


@pytest.mark.parametrize("row", [PAIR, CHAT, {**PAIR, "choices": json.dumps(PAIR["choices"])}], ids=["pair", "chat", "JSON in a cell"])
def test_choices_are_recognised_and_kept_without_outer_white_space(row: dict[str, Any]):
    mapping = recognise(tuple(row), [row])
    assert mapping.columns["choices"] == "choices"
    record = to_record(Row(1, row), mapping)
    assert isinstance(record, dict)
    assert record["choices"] == ["red", "blue", "green"]


def test_pairs_of_turns_may_have_choices():
    row = {"prompt": CHAT["messages"][:1], "completion": CHAT["messages"][1:], "choices": ["blue", "red"]}
    assert to_record(Row(1, row), recognise(tuple(row), [row])) == {"messages": CHAT["messages"], "choices": ["blue", "red"]}


@pytest.mark.parametrize("choices", [["A", "B"], "blue or red", {"text": ["blue", "red"]}])
def test_a_column_that_does_not_hold_the_answers_is_left_alone(choices: Any):
    row = {**PAIR, "choices": choices}
    assert "choices" not in detect(tuple(row), [row])[0].mapping.columns


def test_a_row_without_choices_is_a_row_like_any_other():
    assert to_record(Row(1, {**PAIR, "choices": None}), PAIRS) == {"prompt": "Sky?", "completion": " blue"}


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ("blue, red", "holds text instead of a list of texts"),
        (["blue", 3], "holds a number at place 2, not a text"),
        (["blue", " "], "holds an empty text at place 2, not a text"),
        (["blue"], "holds 1 texts"),
        (["blue", "red", "blue "], "holds the text 'blue' twice"),
        (["red", "green"], "lacks the expected answer, 'blue'"),
    ],
)
def test_choices_that_cannot_be_scored_are_refused(choices: Any, words: str):
    found = to_record(Row(7, {**PAIR, "choices": choices}), PAIRS)
    assert isinstance(found, Problem)
    assert (found.code, found.line, found.severity) == ("choices_wrong", 7, "error")
    assert found.message == f"Line 7: 'choices' {words}."


def test_the_last_turn_must_be_the_answer():
    row = {"messages": [*CHAT["messages"], {"role": "user", "content": "Sure?"}], "choices": ["blue", "red"]}
    found = to_record(Row(1, row), Mapping("messages", {"messages": "messages", "choices": "choices"}))
    assert isinstance(found, Problem)
    assert found.code == "choices_wrong"


def test_validation_keeps_choices_and_its_file_is_read_the_same(tmp_path: Path):
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    rows = [{**PAIR, "prompt": f"Sky {number}?"} for number in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert validate(ValidationRequest({"train": file}, validation_share=0.0, out=out)).ok
    assert [record for _, record in read_records(out / "train.jsonl", None)] == rows
    file.write_text(json.dumps(PAIR) + "\n" + json.dumps({**PAIR, "choices": ["red", "green"]}) + "\n")
    with pytest.raises(UserError) as refusal:
        list(read_records(file, PAIRS))
    assert (refusal.value.code, refusal.value.where) == ("choices_wrong", {"file": str(file), "line": 2})
