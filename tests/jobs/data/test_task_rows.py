"""Rows of tasks other than writing: what columns are taken for what, and what is refused, where and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.data.formats import FIELDS, recognise
from jobs.data.recognition import SHOWN_CHARACTERS, preview, sniff
from jobs.data.records import read_records
from jobs.data.task_recognition import own_mapping
from jobs.data.task_rows import LAYOUTS
from jobs.data.validation import ValidationRequest, validate
from jobs.errors import UserError
from jobs.spec import TASKS, Mapping, Task

CONTEXT = "The ferry leaves the old harbour at noon."
SQUAD = {"question": "Where from?", "context": CONTEXT, "answers": {"text": ["old harbour"], "answer_start": [21]}}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(folder: Path, task: Task, *rows: dict[str, Any], mapping: Mapping | None = None, **options: Any) -> list[dict[str, Any]]:
    return [record for _, record in read_records(write(folder, *rows), mapping, task=task, **options)]


def refusal(folder: Path, task: Task, *rows: dict[str, Any], mapping: Mapping | None = None) -> UserError:
    with pytest.raises(UserError) as refused:
        read(folder, task, *rows, mapping=mapping)
    return refused.value


def test_every_task_has_layouts_and_every_layout_fields():
    assert set(LAYOUTS) == set(TASKS)
    assert {layout for layouts in LAYOUTS.values() for layout in layouts} == set(FIELDS)


def test_a_text_or_a_pair_with_a_label(tmp_path):
    assert read(tmp_path, "sequence_classification", {"sentence": "fine", "label": 1}) == [{"text": "fine", "label": "1"}]
    pair = {"premise": "it rains", "hypothesis": "it is wet", "label": "entailment", "idx": 3}
    assert read(tmp_path, "sequence_classification", pair) == [{"text": "it rains", "text_b": "it is wet", "label": "entailment"}]
    # QNLI's columns: neither text may be left out without a word.
    assert read(tmp_path, "sequence_classification", {"question": "q", "sentence": "s", "label": 0}) == [
        {"text": "q", "text_b": "s", "label": "0"}
    ]


def test_a_chat_with_a_label_is_classified_by_what_the_user_said(tmp_path):
    turns = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "late"}, {"role": "assistant", "content": "delivery"}]
    assert read(tmp_path, "sequence_classification", {"messages": turns, "label": "delivery"}) == [{"text": "late", "label": "delivery"}]
    refused = refusal(tmp_path, "sequence_classification", {"messages": turns, "label": "delivery"}, {"messages": turns})
    assert (refused.code, refused.where["line"]) == ("row_unfit", 2)


def test_a_number(tmp_path):
    assert read(tmp_path, "regression", {"sentence1": "a", "sentence2": "b", "score": "3.5"}) == [
        {"text": "a", "text_b": "b", "number": 3.5}
    ]
    for bad, found in (("x", "'x'"), (True, "true or false"), (None, None), ("nan", "'nan'")):
        refused = refusal(tmp_path, "regression", {"text": "a", "score": 1}, {"text": "a", "score": bad})
        assert refused.where["line"] == 2
        assert refused.code == ("field_missing" if bad is None else "number_wrong")
        assert found is None or f"'score' holds {found}" in refused.message


def test_answers_stand_where_they_say(tmp_path):
    expected = [{"question": "Where from?", "context": CONTEXT, "answers": [{"text": "old harbour", "answer_start": 21}]}]
    assert read(tmp_path, "question_answering", SQUAD) == expected
    as_list = {**SQUAD, "answers": [{"text": "old harbour", "answer_start": 21}]}
    assert read(tmp_path, "question_answering", as_list) == expected
    assert read(tmp_path, "question_answering", {**SQUAD, "answers": json.dumps(SQUAD["answers"])}) == expected, "as a cell of a CSV file"
    assert read(tmp_path, "question_answering", {**SQUAD, "answers": {"text": [], "answer_start": []}})[0]["answers"] == []


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"text": ["old harbour"], "answer_start": [20]}, "'old harbour', begins at character 20 of the context, and it does not"),
        ({"text": ["old harbour"], "answer_start": [-20]}, "begins at character -20"),
        ({"text": ["old harbour"], "answer_start": []}, "no two lists of one length"),
        ([{"text": "old harbour"}], "no text and answer_start in answer 1"),
        ([{"text": " ", "answer_start": 3}], "no text and answer_start in answer 1"),
        ("old harbour", "holds text"),
    ],
)
def test_answers_that_are_not_there(tmp_path, answers, words):
    refused = refusal(tmp_path, "question_answering", SQUAD, {**SQUAD, "answers": answers})
    assert (refused.code, refused.where["line"]) == ("answers_wrong", 2)
    assert words in refused.message
    assert read(tmp_path, "question_answering", SQUAD, {**SQUAD, "answers": answers}, skip_bad_rows=True) == read(
        tmp_path, "question_answering", SQUAD
    )


@pytest.mark.parametrize(("answer", "index"), [(1, 1), ("1", 1), ("B", 1), ("b", 1), ("blue", 1), ("red", 0)])
def test_the_right_choice_by_number_letter_or_text(tmp_path, answer, index):
    row = {"question": "Which?", "choices": ["red", "blue", "green"], "answer": answer}
    assert read(tmp_path, "multiple_choice", row) == [{"question": "Which?", "choices": ["red", "blue", "green"], "answer": index}]


@pytest.mark.parametrize("answer", [3, -1, "D", "3", "grey", True, 1.0])
def test_a_right_choice_that_is_none(tmp_path, answer):
    row = {"question": "Which?", "choices": ["red", "blue", "green"], "answer": answer}
    refused = refusal(tmp_path, "multiple_choice", row)
    assert (refused.code, refused.where["line"]) == ("choice_wrong", 1)
    assert "none of the 3 choices" in refused.message


def test_rows_with_choices_of_other_layouts_serve_multiple_choice(tmp_path):
    row = {"prompt": "Which?", "completion": " blue", "choices": ["red", "blue"]}
    own = {"question": "Which?", "choices": ["red", "blue"], "answer": 1}
    assert read(tmp_path, "multiple_choice", row) == [own]
    turns = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "blue"}]
    assert read(tmp_path, "multiple_choice", {"messages": turns, "choices": ["red", "blue"]}) == [own]


def test_text_to_text_takes_prompts_and_chats(tmp_path):
    assert read(tmp_path, "seq2seq_lm", {"prompt": "p", "completion": "c"}) == [{"prompt": "p", "completion": "c"}]
    alpaca = {"instruction": "Translate.", "input": "Haus", "output": "house"}
    assert read(tmp_path, "seq2seq_lm", alpaca) == [{"prompt": "Translate.\n\nHaus", "completion": "house"}]


def test_the_task_decides_what_columns_mean(tmp_path):
    """The same file is a chat for writing, as it ever was, and a text with a label for classification."""
    row = {"text": "late", "label": "delivery"}
    assert recognise(["text", "label"], [row]).format == "classification"
    assert "messages" in read(tmp_path, "causal_lm", row)[0]
    assert read(tmp_path, "sequence_classification", row) == [row]
    assert own_mapping("causal_lm", ["text", "label"]) is None
    found = sniff(write(tmp_path, row))
    assert found["suggestions"][0]["mapping"]["format"] == "classification"
    own = {"format": "sequence_classification", "columns": {"text": "text", "label": "label"}, "instruction": ""}
    assert found["tasks"] == {"sequence_classification": own}, "a label that is no number makes no regression"


def test_columns_that_are_not_the_tasks(tmp_path):
    refused = refusal(tmp_path, "question_answering", {"text": "a", "label": "b"})
    assert (refused.code, refused.where["file"]) == ("columns_unfit", str(tmp_path / "rows.jsonl"))
    assert "question, context, answers" in refused.message
    chosen = Mapping("regression", {"text": "text", "number": "label"})
    assert refusal(tmp_path, "causal_lm", {"text": "a", "label": 1}, mapping=chosen).code == "mapping_invalid"
    assert read(tmp_path, "regression", {"text": "a", "label": 1}, mapping=chosen) == [{"text": "a", "number": 1.0}]


def test_a_version_of_such_rows_is_checked_written_and_read_again(tmp_path):
    mapping = Mapping("question_answering", {"question": "question", "context": "context", "answers": "answers"})
    source = write(tmp_path, *[{**SQUAD, "question": f"Where from, {number}?"} for number in range(4)])
    outcome = validate(ValidationRequest({"train": source}, mapping=mapping, validation_share=0.25, out=tmp_path / "version"))
    assert (outcome.ok, outcome.report["splits"]) == (True, {"train": 3, "validation": 1})
    assert outcome.report["answer_characters"]["max"] == len("old harbour")
    again = [record for _, record in read_records(tmp_path / "version" / "train.jsonl", None, task="question_answering")]
    assert len(again) == 3
    assert again[0]["answers"] == [{"text": "old harbour", "answer_start": 21}]
    shown = preview(source, mapping)["rows"][0]["parts"]
    assert [(part["role"], part["trained"]) for part in shown] == [("context", False), ("question", False), ("answer", True)]


def shown_parts(folder: Path, task: Task, row: dict[str, Any]) -> list[dict[str, Any]]:
    mapping = own_mapping(task, list(row))
    assert mapping is not None
    (shown,) = preview(write(folder, row), mapping)["rows"]
    return list(shown["parts"])


def test_the_preview_marks_answers_in_their_context_and_the_right_choice(tmp_path):
    context = shown_parts(tmp_path, "question_answering", SQUAD)[0]
    assert [context["content"][slice(*mark)] for mark in context["marks"]] == ["old harbour"]
    row = {"question": "Which?", "choices": ["red", "blue"], "answer": "B"}
    assert [(part["role"], part["content"], part["trained"]) for part in shown_parts(tmp_path, "multiple_choice", row)] == [
        ("question", "Which?", False), ("choice", "red", False), ("choice", "blue", True),
    ]  # fmt: skip


@pytest.mark.parametrize("place", [0, 1500, 6000, 11_980])
def test_of_a_long_context_so_much_is_shown_as_stands_around_the_answer(tmp_path, place):
    long = f"{'zz ' * (place // 3)}old harbour{' yy' * ((12_000 - place) // 3)}"
    start = long.index("old harbour")
    answers = {"text": ["old harbour", "yy"], "answer_start": [start, long.rindex("yy")]} if place == 0 else {**SQUAD["answers"]}
    row = {**SQUAD, "context": long, "answers": {**answers, "answer_start": [start, *answers["answer_start"][1:]]}}
    context = shown_parts(tmp_path, "question_answering", row)[0]
    assert [context["content"][slice(*mark)] for mark in context["marks"]] == ["old harbour"]
    assert len(context["content"]) < SHOWN_CHARACTERS + 40
    assert context["content"].startswith("… ") == (place > 2000)
    assert context["content"].endswith(f"… ({len(long):,} characters)")
