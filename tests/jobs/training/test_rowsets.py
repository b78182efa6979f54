"""The rows of a run: which file gives which rows, cold and from the cache, and when a tokenizer gets a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.data import encoding
from jobs.data.encoding import encode_records
from jobs.data.split import split_indices
from jobs.data.token_cache import TokenCache
from jobs.errors import UserError
from jobs.models.loading import load_tokenizer
from jobs.models.templates import FALLBACK_TEMPLATE
from jobs.spec import DataSpec, TrainingSpec
from jobs.training.rowsets import RowSets, tokenise_rows
from tests.tiny import make_tiny_model

CHATS = [{"messages": [{"role": "user", "content": f"number {n}"}, {"role": "assistant", "content": "a" * (n + 1)}]} for n in range(20)]


@pytest.fixture
def place(tmp_path) -> Path:
    make_tiny_model(tmp_path / "model")
    write(tmp_path / "train.jsonl", CHATS)
    write(tmp_path / "test.jsonl", CHATS[:3])
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tokenise(place: Path, spec: DataSpec, *, tokenizer: Any = None, report: Any = lambda done: None) -> RowSets:
    tokenizer = tokenizer or load_tokenizer(place / "model")
    cache = TokenCache(place / "cache")
    return tokenise_rows(spec, tokenizer, model_folder=place / "model", loss_on="completion", seed=1, cache=cache, report=report)


@pytest.mark.parametrize("times", [1, 2])
def test_rows_are_set_aside_by_seed_and_their_texts_stay_with_them(times, place):
    kept, held_out = split_indices(20, 0.2, 1)
    for _ in range(times):
        rows = tokenise(place, DataSpec(str(place / "train.jsonl"), validation_share=0.2))
    encoded = rows.encoded(TrainingSpec(), 512)
    expected = encode_records(CHATS, load_tokenizer(place / "model")).rows
    assert [row.ids.tolist() for row in encoded.train.rows] == [expected[index].ids.tolist() for index in kept]
    assert [row.ids.tolist() for row in encoded.validation.rows] == [expected[index].ids.tolist() for index in held_out]
    assert (rows.held_out_split, rows.held_out) == ("validation", [CHATS[index] for index in held_out])
    assert len(encoded.test.rows) == 0


def test_test_rows_are_held_out_where_there_are_any(place):
    spec = DataSpec(str(place / "train.jsonl"), test=str(place / "test.jsonl"), validation=str(place / "test.jsonl"))
    rows = tokenise(place, spec)
    encoded = rows.encoded(TrainingSpec(), 512)
    assert (rows.held_out_split, rows.held_out) == ("test", CHATS[:3])
    assert (len(encoded.train.rows), len(encoded.validation.rows), len(encoded.test.rows)) == (20, 3, 3)
    assert encoded.of("test") is encoded.test


def test_a_second_run_tokenises_nothing(place, monkeypatch):
    spec = DataSpec(str(place / "train.jsonl"), validation_share=0.0)
    first = tokenise(place, spec).encoded(TrainingSpec(), 512)

    def refuse(*arguments: object) -> None:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(encoding, "_tokenise", refuse)
    done: list[int] = []
    again = tokenise(place, spec, report=done.append).encoded(TrainingSpec(max_length=48), 512)
    assert done == [20]
    assert [row.ids.tolist() for row in again.train.rows] == [row.ids[:48].tolist() for row in first.train.rows if row.trained[:48].any()]
    write(place / "train.jsonl", CHATS[1:])
    with pytest.raises(AssertionError):
        tokenise(place, spec)


@pytest.mark.parametrize("times", [1, 2])
def test_a_tokenizer_without_a_template_gets_one_for_chats_alone(times, place):
    (place / "model" / "chat_template.jinja").unlink()
    write(place / "text.jsonl", [{"text": "plain"}])
    for _ in range(times):
        for name, template in (("train", FALLBACK_TEMPLATE), ("text", None)):
            tokenizer = load_tokenizer(place / "model")
            tokenise(place, DataSpec(str(place / f"{name}.jsonl"), validation_share=0.0), tokenizer=tokenizer)
            assert tokenizer.chat_template == template


@pytest.mark.parametrize(
    ("rows", "code"),
    [([], "file_empty"), ([{"text": ""}], "text_empty"), (None, "file_missing")],
)
def test_what_cannot_be_read_is_refused_and_nothing_kept(rows, code, place):
    path = place / "bad.jsonl"
    if rows is not None:
        write(path, rows)
    with pytest.raises(UserError) as refused:
        tokenise(place, DataSpec(str(path)))
    assert (refused.value.code, refused.value.where["file"]) == (code, str(path))
    assert not (place / "cache").exists() or list((place / "cache").iterdir()) == []


def test_a_file_of_bad_rows_alone_has_no_rows(place):
    write(place / "bad.jsonl", [{"text": ""}])
    with pytest.raises(UserError) as refused:
        tokenise(place, DataSpec(str(place / "bad.jsonl"), skip_bad_rows=True))
    assert refused.value.code == "no_rows"
