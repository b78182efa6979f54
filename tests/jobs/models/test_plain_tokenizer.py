"""The tokenizer without torch against transformers' own, and what is seen of a row with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.data.encoding import encode_batches, see_row
from jobs.data.seen import see
from jobs.data.token_lengths import token_lengths
from jobs.errors import UserError
from jobs.models.loading import load_tokenizer
from jobs.models.plain_tokenizer import load_plain_tokenizer
from tests.tiny import make_tiny_model

CHAT = {
    "messages": [
        {"role": "user", "content": "Wo ist es? 🙂"},
        {"role": "assistant", "content": "Da.", "weight": 0},
        {"role": "user", "content": "Und jetzt?"},
        {"role": "assistant", "content": "Dort."},
    ]
}
RECORDS = [CHAT, {"prompt": "Zwei und zwei? ", "completion": "Vier."}, {"text": "Ein Satz."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    make_tiny_model(path)
    return path


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_ids_and_marks_are_those_of_transformers(folder: Path, loss_on: str) -> None:
    plain, whole = load_plain_tokenizer(folder), load_tokenizer(folder)
    for record in RECORDS:
        (expected,) = next(encode_batches([record], whole, loss_on))
        (found,) = next(encode_batches([record], plain, loss_on))
        seen = see_row(record, plain, loss_on).encoded
        for row in (found, seen):
            np.testing.assert_array_equal(row.ids, expected.ids)
            np.testing.assert_array_equal(row.trained, expected.trained)


def written(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_row_is_cut_into_what_is_trained_on_and_what_is_not(folder: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "train.jsonl", RECORDS)
    seen = see(file, 0, load_plain_tokenizer(folder))
    assert "".join(piece["text"] for piece in seen["pieces"]).startswith("<|im_start|>user\nWo ist es? 🙂<|im_end|>")
    assert [piece["text"] for piece in seen["pieces"] if piece["trained"]] == ["Dort.<|im_end|>"]
    pair = see(file, 1, load_plain_tokenizer(folder))
    assert [(piece["text"], piece["trained"]) for piece in pair["pieces"]] == [
        ("Zwei und zwei? ", False), ("Vier.", True), ("<|im_end|>", True),
    ]  # fmt: skip
    assert (pair["tokens"][-1]["added"], pair["token_count"], pair["trained_count"]) == (True, 21, 6)


def test_beyond_the_maximum_everything_is_cut(folder: Path, tmp_path: Path) -> None:
    seen = see(written(tmp_path / "train.jsonl", RECORDS), 1, load_plain_tokenizer(folder), max_length=17)
    assert [(piece["text"], piece["cut"]) for piece in seen["pieces"]] == [
        ("Zwei und zwei? ", False), ("Vi", False), ("er.", True), ("<|im_end|>", True),
    ]  # fmt: skip
    assert (seen["kept_count"], seen["kept_trained"]) == (17, 2)


def test_a_row_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        see(written(tmp_path / "train.jsonl", RECORDS), 3, load_plain_tokenizer(folder))
    assert refused.value.code == "row_unknown"


def test_lengths_say_where_the_first_trained_token_is(folder: Path, tmp_path: Path) -> None:
    found = token_lengths(written(tmp_path / "train.jsonl", RECORDS[1:]), 2, load_plain_tokenizer(folder))
    assert found["lengths"] == [(10, 1), (21, 1)]
    # Of the text the first token has nothing before it, so the second is the first that is trained on.
    assert found["first"] == [(2, 1), (16, 1)]
    assert (found["tokens"], found["trained_tokens"], found["untrained"], found["looked_at"]) == (31, 15, 0, 2)
