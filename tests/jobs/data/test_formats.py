"""Layouts: recognised from columns and rows, mappings checked, rows turned into records or refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.data.convert import parts, record_warnings, to_record
from jobs.data.formats import check_mapping, detect, mapping_from_json, mapping_to_json, recognise
from jobs.data.rows import Problem, Row
from jobs.errors import UserError
from jobs.spec import Mapping

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SHARED = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]

RECOGNISED: list[tuple[str, dict[str, Any], str, dict[str, str]]] = [
    ("chat", {"messages": CHAT}, "messages", {"messages": "messages"}),
    ("chat with a label", {"messages": CHAT, "label": "x"}, "messages", {"messages": "messages", "label": "label"}),
    ("chat under another name", {"id": 1, "conversations": CHAT}, "messages", {"messages": "conversations"}),
    ("chat as JSON text", {"messages": '[{"role": "user", "content": "Hi"}]'}, "messages", {"messages": "messages"}),
    (
        "ShareGPT",
        {"conversations": SHARED, "system": "Be kind"},
        "sharegpt",
        {"conversations": "conversations", "from": "from", "value": "value", "system": "system"},
    ),
    (
        "Alpaca",
        {"instruction": "Say hi", "input": "", "output": "Hi"},
        "alpaca",
        {"instruction": "instruction", "output": "output", "input": "input"},
    ),
    ("Alpaca without input", {"Instruction": "Say hi", "Response": "Hi"}, "alpaca", {"instruction": "Instruction", "output": "Response"}),
    ("pairs", {"prompt": "Hi", "completion": " Hello"}, "prompt_completion", {"prompt": "prompt", "completion": "completion"}),
    ("questions", {"question": "1+1?", "answer": "2"}, "prompt_completion", {"prompt": "question", "completion": "answer"}),
    ("pairs of turns", {"prompt": CHAT[:1], "completion": CHAT[1:]}, "prompt_completion", {"prompt": "prompt", "completion": "completion"}),
    ("labels", {"Text": "good", "Label": "positive"}, "classification", {"text": "Text", "label": "Label"}),
    ("numbered labels", {"sentence": "good", "label": 1}, "classification", {"text": "sentence", "label": "label"}),
    ("text", {"text": "once upon"}, "text", {"text": "text"}),
    ("one column of any name", {"lyrics": "once upon"}, "text", {"text": "lyrics"}),
]


@pytest.mark.parametrize(("row", "layout", "columns"), [case[1:] for case in RECOGNISED], ids=[case[0] for case in RECOGNISED])
def test_layout_is_recognised(row: dict[str, Any], layout: str, columns: dict[str, str]):
    best = detect(tuple(row), [row])[0]
    assert (best.mapping.format, best.mapping.columns) == (layout, columns)
    assert 0 < best.confidence <= 1
    assert best.reason
    assert recognise(tuple(row), [row]) == best.mapping
    assert mapping_from_json(mapping_to_json(best.mapping)) == best.mapping
    check_mapping(best.mapping, tuple(row))


def test_multiple_choice_is_not_taken_for_something_else():
    row = {"id": "M1", "question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
    with pytest.raises(UserError) as refusal:
        recognise(tuple(row), [row])
    assert refusal.value.code == "format_unknown"
    assert "question, choices, answerKey" in refusal.value.message


def test_two_nameless_columns_are_offered_but_not_taken():
    rows = [{"column_1": f"I want to talk about {number}", "column_2": "ab"[number % 2]} for number in range(8)]
    suggestion = detect(("column_1", "column_2"), rows)[0]
    assert (suggestion.mapping.format, suggestion.mapping.columns) == ("classification", {"text": "column_1", "label": "column_2"})
    with pytest.raises(UserError, match="None of the known layouts"):
        recognise(("column_1", "column_2"), rows)


@pytest.mark.parametrize(
    ("row", "code"),
    [({"messages": CHAT, "label": True}, "unwanted_answers"), ({"prompt": "x", "chosen": "a", "rejected": "b"}, "preference_pairs")],
)
def test_preference_data_is_pointed_out(row: dict[str, Any], code: str):
    best = detect(tuple(row), [row])[0]
    assert [warning.code for warning in best.warnings] == [code]


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        (Mapping("alpaca", {"instruction": "a"}), "no column is chosen for 'output'"),
        (Mapping("text", {"text": "z"}), "there is no column 'z'; the file has a, b"),
        (Mapping("text", {"text": "a", "label": "b"}), "the layout text has no field 'label'"),
        (Mapping("text", {"text": "a"}, instruction="Do"), "plain text takes no instruction"),
    ],
)
def test_mapping_that_does_not_fit(mapping: Mapping, reason: str):
    with pytest.raises(UserError) as refusal:
        check_mapping(mapping, ("a", "b"))
    assert refusal.value.code == "mapping_invalid"
    assert reason in refusal.value.message


@pytest.mark.parametrize(
    "body", [{"format": "tables"}, {"format": "text", "columns": {"text": 1}}, {"columns": {}}, {"format": "text", "x": 1}, [1]]
)
def test_mapping_that_is_none(body: Any):
    with pytest.raises(UserError) as refusal:
        mapping_from_json(body)
    assert refusal.value.code == "mapping_invalid"


def chat(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


ASKED = chat(("user", "Hi"), ("assistant", "Hello"))
MESSAGES = Mapping("messages", {"messages": "messages", "label": "label"})
SHAREGPT = Mapping("sharegpt", {"conversations": "c", "from": "from", "value": "value", "system": "s"})
ALPACA = Mapping("alpaca", {"instruction": "i", "input": "n", "output": "o"})
PAIRS = Mapping("prompt_completion", {"prompt": "p", "completion": "c"})
LABELS = Mapping("classification", {"text": "t", "label": "l"}, instruction="Name the mood.")

RECORDS: list[tuple[str, Mapping, dict[str, Any], dict[str, Any]]] = [
    ("chat", MESSAGES, {"messages": CHAT, "label": None}, {"messages": ASKED}),
    ("chat keeps its label", MESSAGES, {"messages": CHAT, "label": " x "}, {"messages": ASKED, "label": "x"}),
    (
        "weights are kept",
        MESSAGES,
        {"messages": [*CHAT, CHAT[0], CHAT[1] | {"weight": 0}]},
        {"messages": [*ASKED, ASKED[0], ASKED[1] | {"weight": 0}]},
    ),
    ("weights of users mean nothing", MESSAGES, {"messages": [CHAT[0] | {"weight": 1}, CHAT[1]]}, {"messages": ASKED}),
    (
        "parts of text are joined",
        MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, CHAT[1]]},
        {"messages": ASKED},
    ),
    (
        "developer is system",
        MESSAGES,
        {"messages": [{"role": "developer", "content": "Be kind"}, *CHAT]},
        {"messages": chat(("system", "Be kind")) + ASKED},
    ),
    (
        "instruction becomes the system message",
        Mapping("messages", {"messages": "messages"}, "Be kind"),
        {"messages": CHAT},
        {"messages": chat(("system", "Be kind")) + ASKED},
    ),
    (
        "a system message that is there stays",
        Mapping("messages", {"messages": "messages"}, "Be rude"),
        {"messages": chat(("system", "Be kind")) + ASKED},
        {"messages": chat(("system", "Be kind")) + ASKED},
    ),
    ("ShareGPT", SHAREGPT, {"c": SHARED, "s": "Be kind"}, {"messages": chat(("system", "Be kind")) + ASKED}),
    ("ShareGPT without tools in its column", SHAREGPT, {"c": SHARED, "s": None, "tools": "[]"}, {"messages": ASKED}),
    ("Alpaca", ALPACA, {"i": "Add", "n": "1 and 1", "o": "2"}, {"messages": chat(("user", "Add\n\n1 and 1"), ("assistant", "2"))}),
    ("Alpaca with a blank input", ALPACA, {"i": "Add", "n": " ", "o": 2}, {"messages": chat(("user", "Add"), ("assistant", "2"))}),
    ("pairs as they stand", PAIRS, {"p": "Hi", "c": " Hello"}, {"prompt": "Hi", "completion": " Hello"}),
    (
        "pairs with an instruction",
        Mapping("prompt_completion", {"prompt": "p", "completion": "c"}, "Be kind"),
        {"p": "Hi", "c": "Hello"},
        {"prompt": "Be kind\n\nHi", "completion": "Hello"},
    ),
    ("pairs of turns", PAIRS, {"p": [*CHAT, CHAT[0]], "c": CHAT[1:]}, {"messages": [ASKED[0], ASKED[1] | {"weight": 0}, *ASKED]}),
    (
        "labels",
        LABELS,
        {"t": "nice", "l": " good "},
        {"messages": chat(("user", "Name the mood.\n\nnice"), ("assistant", "good")), "label": "good"},
    ),
    (
        "labels of numbers",
        LABELS,
        {"t": "nice", "l": 1},
        {"messages": chat(("user", "Name the mood.\n\nnice"), ("assistant", "1")), "label": "1"},
    ),
    (
        "labels of truth",
        LABELS,
        {"t": "nice", "l": True},
        {"messages": chat(("user", "Name the mood.\n\nnice"), ("assistant", "true")), "label": "true"},
    ),
    ("text", Mapping("text", {"text": "t"}), {"t": "once"}, {"text": "once"}),
]


@pytest.mark.parametrize(("mapping", "value", "record"), [case[1:] for case in RECORDS], ids=[case[0] for case in RECORDS])
def test_record(mapping: Mapping, value: dict[str, Any], record: dict[str, Any]):
    assert to_record(Row(1, value), mapping) == record


USER, ANSWER = CHAT
REFUSED: list[tuple[str, Mapping, dict[str, Any], str, str]] = [
    ("no messages", MESSAGES, {}, "field_missing", "'messages' is missing"),
    ("messages that are text", MESSAGES, {"messages": "Hi"}, "field_type", "text instead of a list of messages"),
    ("no message in the list", MESSAGES, {"messages": []}, "text_empty", "'messages' is empty"),
    ("message that is no object", MESSAGES, {"messages": ["Hi"]}, "chat_message", "message 1 is text, not an object"),
    ("message without a role", MESSAGES, {"messages": [USER, {"content": "Hi"}]}, "chat_message", "message 2 has no 'role'"),
    ("unknown role", MESSAGES, {"messages": [{"role": "narrator", "content": "Hi"}]}, "chat_role", "the role 'narrator'"),
    ("no answer", MESSAGES, {"messages": [USER]}, "chat_no_answer", "no answer of the assistant"),
    ("all answers weigh nothing", MESSAGES, {"messages": [USER, ANSWER | {"weight": 0}]}, "chat_no_answer", "no answer"),
    ("half a weight", MESSAGES, {"messages": [USER, ANSWER | {"weight": 0.5}]}, "chat_message", "only 0 and 1 are known"),
    ("empty answer", MESSAGES, {"messages": [USER, {"role": "assistant", "content": " "}]}, "answer_empty", "nothing to learn"),
    ("empty question", MESSAGES, {"messages": [{"role": "user", "content": ""}, ANSWER]}, "text_empty", "'message 1' is empty"),
    ("content that is null", MESSAGES, {"messages": [USER, {"role": "assistant", "content": None}]}, "chat_message", "has no 'content'"),
    (
        "content that is a number",
        MESSAGES,
        {"messages": [{"role": "user", "content": 3}, ANSWER]},
        "chat_message",
        "a number as 'content', not text",
    ),
    (
        "picture",
        MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ANSWER]},
        "chat_message",
        "not text (image_url)",
    ),
    (
        "tool call",
        MESSAGES,
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}]},
        "chat_tools",
        "'tool_calls' in message 2",
    ),
    ("tool result", MESSAGES, {"messages": [USER, {"role": "tool", "content": "7"}, ANSWER]}, "chat_tools", "role 'tool' in message 2"),
    ("tools on offer", MESSAGES, {"messages": CHAT, "tools": [{"type": "function"}]}, "chat_tools", "'tools'"),
    ("ShareGPT function call", SHAREGPT, {"c": [*SHARED, {"from": "function_call", "value": "{}"}]}, "chat_tools", "role 'function_call'"),
    ("ShareGPT tools as text", SHAREGPT, {"c": SHARED, "tools": '[{"name": "x"}]'}, "chat_tools", "'tools'"),
    (
        "zero character in a message",
        MESSAGES,
        {"messages": [USER, {"role": "assistant", "content": "a\0"}]},
        "text_broken",
        "zero character",
    ),
    ("half a character in JSON within a cell", MESSAGES, {"messages": '[{"role": "user", "content": "\\ud83d"}]'}, "text_broken", "half"),
    ("Alpaca without output", ALPACA, {"i": "Add", "o": None}, "field_missing", "'o' is missing"),
    ("Alpaca with an empty output", ALPACA, {"i": "Add", "o": ""}, "answer_empty", "'o'"),
    ("pair with a list", PAIRS, {"p": "Hi", "c": ["Hello"]}, "field_type", "'c' holds a list, not text"),
    ("pair with truth", PAIRS, {"p": "Hi", "c": True}, "field_type", "true or false, not text"),
    ("pair with bytes", PAIRS, {"p": "Hi", "c": b"x"}, "field_type", "binary data, not text"),
    ("empty prompt", PAIRS, {"p": "", "c": "Hello"}, "text_empty", "'p' is empty"),
    ("empty label", LABELS, {"t": "nice", "l": ""}, "answer_empty", "'l'"),
    ("empty text", Mapping("text", {"text": "t"}), {"t": "\n"}, "text_empty", "'t' is empty"),
]


@pytest.mark.parametrize(("mapping", "value", "code", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_row_is_refused(mapping: Mapping, value: dict[str, Any], code: str, words: str):
    problem = to_record(Row(7, value, "row"), mapping)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.line, problem.severity) == (code, 7, "error")
    assert problem.message.startswith("Row 7")
    assert words in problem.message
    assert problem.remedy


def test_what_is_trained_on():
    record = to_record(Row(1, {"messages": [*CHAT, CHAT[0], CHAT[1] | {"weight": 0}]}), MESSAGES)
    assert isinstance(record, dict)
    assert [part["trained"] for part in parts(record)] == [False, True, False, False]
    assert [part["trained"] for part in parts({"prompt": "a", "completion": "b"})] == [False, True]
    assert [part["trained"] for part in parts({"text": "a"})] == [True]


@pytest.mark.parametrize(
    ("turns", "codes"),
    [
        (ASKED, []),
        (chat(("system", "s")) + ASKED + ASKED, []),
        (chat(("assistant", "Hello")), ["chat_no_question"]),
        (chat(("user", "a"), ("user", "b"), ("assistant", "c")), ["chat_order"]),
    ],
)
def test_odd_orders_of_turns_are_said(turns: list[dict[str, Any]], codes: list[str]):
    assert [warning.code for warning in record_warnings({"messages": turns}, Row(1, {}))] == codes
