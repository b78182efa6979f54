"""Tokenised files on disk: what is found again, what is not, what is torn, and how much is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.data.encoding import encode_batches, encode_records
from jobs.data.token_cache import TokenCache, token_key
from jobs.data.tokens import Encoded, TokenStore, cut_rows
from jobs.spec import Mapping
from tests.tiny import tiny_tokenizer

RECORDS = [{"prompt": f"question {number} ", "completion": "x" * number} for number in range(1, 40)]
KEY = "0" * 64


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def cache(tmp_path) -> TokenCache:
    return TokenCache(tmp_path / "cache")


def fill(cache: TokenCache, tokenizer, key: str = KEY, records=RECORDS, vocabulary: int = 258) -> TokenStore:
    return cache.put(key, encode_batches(records, tokenizer), vocabulary=vocabulary, chats=lambda: False)


def same(found: TokenStore | None, records, tokenizer) -> bool:
    assert found is not None
    rows, expected = cut_rows(found).rows, encode_records(records, tokenizer).rows
    assert [row.ids.dtype for row in rows] == [np.dtype(np.int32)] * len(rows)
    pairs = list(zip(rows, expected, strict=True))
    return all(a.ids.tolist() == b.ids.tolist() and a.trained.tolist() == b.trained.tolist() for a, b in pairs)


@pytest.mark.parametrize(("vocabulary", "width"), [(258, 2), (65536, 2), (65537, 4)])
def test_what_is_put_is_found_again_in_as_few_bytes_as_the_vocabulary_allows(vocabulary, width, cache, tokenizer):
    assert same(fill(cache, tokenizer, vocabulary=vocabulary), RECORDS, tokenizer)
    found = cache.get(KEY)
    assert same(found, RECORDS, tokenizer)
    assert (cache.folder / KEY / "ids").stat().st_size == width * len(found.ids)
    assert [path.name for path in cache.folder.iterdir()] == [KEY]
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_an_absent_entry_is_none(cache):
    assert cache.get(KEY) is None
    assert TokenCache(None).get(KEY) is None


def test_without_a_folder_nothing_is_left_behind(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert same(fill(TokenCache(None), tokenizer), RECORDS, tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_done_without(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    assert same(fill(TokenCache(tmp_path / "file" / "cache"), tokenizer), RECORDS, tokenizer)


@pytest.mark.parametrize("name", ["ids", "trained", "offsets", "first", "labels"])
@pytest.mark.parametrize("harm", ["cut", "zeroed", "gone"])
def test_a_torn_entry_is_removed_and_made_anew(name, harm, cache, tokenizer):
    fill(cache, tokenizer)
    file = cache.folder / KEY / name
    body = file.read_bytes()
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(body[:-1] if harm == "cut" else bytes(len(body) - 8) + b"\1" * 8)
    assert cache.get(KEY) is None
    assert not (cache.folder / KEY).exists()
    fill(cache, tokenizer)
    assert same(cache.get(KEY), RECORDS, tokenizer)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta | {"key": "1" * 64},
        lambda meta: {},
        lambda meta: [],
        lambda meta: meta | {"arrays": {**meta["arrays"], "ids": {**meta["arrays"]["ids"], "type": "O"}}},
        lambda meta: meta | {"arrays": {name: said for name, said in meta["arrays"].items() if name != "first"}},
    ],
)
def test_a_foreign_entry_is_removed(change, cache, tokenizer):
    fill(cache, tokenizer)
    meta = cache.folder / KEY / "meta.json"
    meta.write_text(json.dumps(change(json.loads(meta.read_text()))))
    assert cache.get(KEY) is None
    assert not (cache.folder / KEY).exists()


def test_a_second_writer_leaves_the_first_one_s_entry(cache, tokenizer):
    first = fill(cache, tokenizer)
    written = (cache.folder / KEY / "ids").stat().st_ino
    assert same(fill(cache, tokenizer), RECORDS, tokenizer)
    assert (cache.folder / KEY / "ids").stat().st_ino == written
    assert same(first, RECORDS, tokenizer)
    assert [path.name for path in cache.folder.iterdir()] == [KEY]


def test_the_least_used_entries_go_when_there_are_too_many_bytes(cache, tokenizer):
    keys = [str(number) * 64 for number in range(4)]
    fill(cache, tokenizer, keys[0])
    size = sum(path.stat().st_size for path in (cache.folder / keys[0]).iterdir())
    small = TokenCache(cache.folder, limit_bytes=2 * size)
    fill(small, tokenizer, keys[1])
    for key, age in ((keys[0], 50), (keys[1], 100)):
        os.utime(cache.folder / key, (1_000_000 - age, 1_000_000 - age))
    mapped = small.get(keys[1])  # used just now, so the other one goes
    fill(small, tokenizer, keys[2])
    assert {path.name for path in cache.folder.iterdir()} == {keys[1], keys[2]}
    os.utime(cache.folder / keys[1], (1, 1))
    fill(small, tokenizer, keys[3])
    assert {path.name for path in cache.folder.iterdir()} == {keys[2], keys[3]}
    assert same(mapped, RECORDS, tokenizer), "what is removed stays readable for whoever has mapped it"


def test_an_entry_larger_than_all_that_may_be_kept_serves_its_run_alone(cache, tokenizer):
    assert same(fill(TokenCache(cache.folder, limit_bytes=10), tokenizer), RECORDS, tokenizer)
    assert list(cache.folder.iterdir()) == []


def test_what_a_killed_process_left_goes_after_a_day(cache, tokenizer):
    fresh, old = cache.folder / ".partial-a", cache.folder / ".partial-b"
    fresh.mkdir(parents=True)
    old.mkdir()
    os.utime(old, (1, 1))
    fill(cache, tokenizer)
    assert {path.name for path in cache.folder.iterdir()} == {KEY, fresh.name}


def test_a_failure_half_way_leaves_nothing(cache, tokenizer):
    def broken():
        yield encode_records(RECORDS, tokenizer).rows[:5]
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        cache.put(KEY, broken(), vocabulary=258, chats=lambda: False)
    assert list(cache.folder.iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from jobs.data.token_cache import TokenCache
from tests.jobs.data.test_token_cache import KEY, RECORDS, fill, same
from tests.tiny import tiny_tokenizer
tokenizer, cache = tiny_tokenizer(), TokenCache(Path(sys.argv[1]))
for _ in range(40):
    store = cache.get(KEY) or fill(cache, tokenizer)
    assert same(store, RECORDS, tokenizer)
    (cache.folder / KEY / "ids").unlink(missing_ok=True)  # torn at any moment, for both
"""


def test_two_processes_at_once_never_get_a_torn_entry(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)]) for _ in range(2)]
    assert [writer.wait(120) for writer in writers] == [0, 0]


@pytest.fixture
def made_from(tmp_path) -> dict:
    data, folder = tmp_path / "train.jsonl", tmp_path / "model"
    data.write_text('{"text": "a"}\n')
    tiny_tokenizer().save_pretrained(folder)
    return {
        "file": data,
        "mapping": None,
        "skip_bad_rows": False,
        "loss_on": "completion",
        "tokenizer_folder": folder,
        "fallback_template": "x",
    }


def test_the_key_is_one_of_content_not_of_place_or_time(made_from, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(made_from["file"].read_bytes())
    os.utime(copy, (1, 1))
    assert token_key(**made_from) == token_key(**{**made_from, "file": copy})


def test_the_key_changes_with_all_that_the_tokens_hang_on(made_from, monkeypatch):
    keys = [token_key(**made_from)]
    text = Mapping("text", {"text": "text"})
    changes = ({"mapping": text}, {"skip_bad_rows": True}, {"loss_on": "all"}, {"fallback_template": "y"})
    keys += [token_key(**{**made_from, **change}) for change in changes]
    monkeypatch.setattr("jobs.data.token_cache.version", lambda name: "another")
    keys.append(token_key(**made_from))
    monkeypatch.setattr("jobs.data.token_cache._code", lambda: "another")
    keys.append(token_key(**made_from))
    stat = made_from["file"].stat()
    made_from["file"].write_text('{"text": "b"}\n')
    os.utime(made_from["file"], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    keys.append(token_key(**made_from))
    for name in ("tokenizer.json", "chat_template.jinja"):
        path: Path = made_from["tokenizer_folder"] / name
        path.write_text(path.read_text() + " ")
        keys.append(token_key(**made_from))
    assert len(set(keys)) == len(keys) == 10


def test_a_template_that_writes_the_date_is_tokenised_anew_each_day(made_from, monkeypatch):
    from datetime import UTC, datetime, timedelta

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz=UTC) + timedelta(days=1)

    today = token_key(**made_from)
    monkeypatch.setattr("jobs.data.token_cache.datetime", Tomorrow)
    assert token_key(**made_from) == today
    template = made_from["tokenizer_folder"] / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d') }}" + template.read_text())
    tomorrow = token_key(**made_from)
    monkeypatch.undo()
    assert token_key(**made_from) != tomorrow


def test_rows_cut_from_a_store_are_those_cut_one_by_one():
    generator = np.random.default_rng(0)
    rows = [Encoded(np.arange(n, dtype=np.int32), generator.random(n) < 0.1) for n in generator.integers(1, 60, 200)]
    numbers = np.flatnonzero(generator.random(200) < 0.5)
    found = cut_rows(TokenStore.of(rows), numbers, max_length=24)
    cut = [Encoded(rows[number].ids[:24], rows[number].trained[:24]) for number in numbers]
    kept = [place for place, row in enumerate(cut) if row.trained.any()]
    assert found.indices == kept
    assert [row.ids.tolist() for row in found.rows] == [cut[place].ids.tolist() for place in kept]
    assert [row.trained.tolist() for row in found.rows[3:9]] == [cut[place].trained.tolist() for place in kept[3:9]]
    assert (found.tokens, found.label_tokens) == (
        sum(len(cut[place].ids) for place in kept),
        sum(int(cut[place].trained.sum()) for place in kept),
    )
    assert (found.cut, found.dropped) == (sum(len(rows[number].ids) > 24 for number in numbers), len(numbers) - len(kept))
