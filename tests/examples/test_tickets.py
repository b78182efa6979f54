"""The sample data is what the script makes, and its test file is not its training file in disguise."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from examples import make_tickets
from examples.ticket_phrases import TEST, TRAIN
from jobs.data.records import read_records

FOLDER = Path(make_tickets.__file__).parent / "tickets"


def rows(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def unpacked(content: bytes) -> bytes:
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def test_script_reproduces_the_committed_files(tmp_path):
    make_tickets.main(tmp_path)
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(path.name for path in tmp_path.iterdir())
    for made in tmp_path.iterdir():
        assert unpacked(made.read_bytes()) == unpacked((FOLDER / made.name).read_bytes()), made.name


def test_sizes_languages_and_balance():
    train, test = rows("train.jsonl"), rows("test.jsonl")
    assert (len(train), len(test)) == (600, 104)
    assert set(Counter(row["label"] for row in train).values()) == {75}
    assert set(Counter(row["label"] for row in test).values()) == {13}
    assert {row["label"] for row in train} == {row["label"] for row in test} == set(TRAIN) == set(TEST)


def test_no_ticket_and_no_sentence_of_the_test_file_is_in_the_training_file():
    texts = {name: [row["messages"][1]["content"] for row in rows(name)] for name in ("train.jsonl", "test.jsonl")}
    assert len(set(texts["train.jsonl"])) == 600
    assert not set(texts["train.jsonl"]) & set(texts["test.jsonl"])
    for intent, languages in TEST.items():
        for language, sentences in languages.items():
            assert not set(sentences) & set(TRAIN[intent][language])


def test_no_prompt_names_an_intent():
    for row in rows("train.jsonl") + rows("test.jsonl"):
        asked = " ".join(message["content"] for message in row["messages"][:-1])
        assert not [intent for intent in TRAIN if intent in asked]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tickets.csv", {"messages", "label"}),
        ("alpaca.json", {"messages"}),
        ("sharegpt.jsonl", {"messages"}),
        ("prompt_completion.jsonl.gz", {"prompt", "completion"}),
        ("text.txt", {"text"}),
    ],
)
def test_other_layouts_hold_the_same_tickets(name, shape):
    records = [record for _, record in read_records(FOLDER / name, None)]
    tickets = [row["messages"][1]["content"] for row in rows("train.jsonl")[:60]]
    assert [set(record) for record in records] == [shape] * 60
    for record, ticket in zip(records, tickets, strict=True):
        assert ticket in json.dumps(record, ensure_ascii=False).replace('\\"', '"')
