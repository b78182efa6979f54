"""A24 to A34: data files and archives."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.attacks import corpus
from tests.attacks.corpus import GOOD_ROW, lines, nested, zip_of
from tests.attacks.files.boxed import SECRET, Ground, problems, refused, sniff, take_rows


def put(here: Ground, name: str, body: bytes) -> Path:
    path = here.files / name
    path.write_bytes(body)
    return path


def test_rows_themselves_are_taken(here: Ground) -> None:
    """Else every refusal below would prove nothing."""
    assert take_rows(put(here, "rows.jsonl", lines()), here.out)["ok"]


CARDS = [
    "configs:\n- config_name: default\n  data_files: ../theirs/secret.txt",
    "configs:\n- config_name: default\n  data_dir: ../theirs",
    "configs:\n- config_name: default\n  data_files: http://169.254.169.254/",
]


@pytest.mark.parametrize("card", CARDS)
def test_a24_a_card_steers_nothing(here: Ground, card: str) -> None:
    """A dataset is one file, named by us: a card beside it is not looked at, and as the file itself it is text."""
    put(here, "README.md", f"---\n{card}\n---\n".encode())
    rows = put(here, "rows.jsonl", lines())
    outcome = take_rows(rows, here.out)
    assert outcome["ok"]
    assert SECRET not in json.dumps(outcome)
    assert SECRET not in json.dumps(sniff(here.files / "README.md"))


def test_a25_a_file_name_in_a_row_is_text(here: Ground) -> None:
    rows = put(
        here, "metadata.jsonl", lines({"prompt": "../theirs/secret.txt", "completion": "file_name", "file_name": "../theirs/secret.txt"})
    )
    assert take_rows(rows, here.out)["ok"]
    assert "../theirs/secret.txt" in (here.out / "rows" / "train.jsonl").read_text()


def test_a26_a_script_is_text(here: Ground) -> None:
    script = put(here, "up.py", f"open({str(here.marker)!r}, 'w')\n".encode() * 20)
    assert sniff(script)["facts"]["kind"] == "text"
    put(here, "up2.py", b"import os\nos.system('id')\n")


@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
def test_a27_brackets_without_end(here: Ground, depth: int) -> None:
    outcome = take_rows(put(here, "deep.jsonl", lines() + nested(depth)), here.out)
    assert (outcome["ok"], problems(outcome)) == (False, [("json_too_deep", 4)])


ODD = {
    '{"prompt": 1e999, "completion": "x"}': "json_number",
    '{"prompt": NaN, "completion": "x"}': "json_number",
    '{"prompt": -Infinity, "completion": "x"}': "json_number",
    '{"prompt": ' + "9" * 6000 + ', "completion": "x"}': "json_number",
    '{"prompt": "\\ud800", "completion": "x"}': "text_broken",
    '{"prompt": "a", "prompt": "b", "completion": "x"}': "json_duplicate_key",
    '{"prompt": "cut off': "json_invalid",
}


@pytest.mark.parametrize("row", ODD, ids=lambda row: row[:30])
def test_a28_odd_json(here: Ground, row: str) -> None:
    outcome = take_rows(put(here, "odd.jsonl", lines(row)), here.out)
    assert (outcome["ok"], problems(outcome)) == (False, [(ODD[row], 4)])


def test_a28_utf_16_is_read_as_what_it_is(here: Ground) -> None:
    outcome = take_rows(put(here, "wide.jsonl", lines().decode().encode("utf-16")), here.out)
    assert outcome["ok"]
    assert json.loads((here.out / "rows" / "train.jsonl").read_text().splitlines()[0]) == GOOD_ROW


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "train.jsonl"])
def test_a29_a_gzip_bomb_by_whatever_name(here: Ground, name: str) -> None:
    bomb = put(here, name, corpus.gzip_bomb(256))
    refused(lambda: take_rows(bomb, here.out, "jsonl"), "100")
    assert sum(path.stat().st_size for path in here.out.rglob("*") if path.is_file()) < 50 * 2**20


def test_a30_a_parquet_bomb(here: Ground) -> None:
    """Two million rows of a megabyte each, in some kilobytes."""
    bomb = corpus.parquet_bomb(here.files / "rows.parquet", 2_000_000, 1_000_000)
    assert bomb.stat().st_size < 5_000_000
    refused(lambda: take_rows(bomb, here.out), "1000 times")
    assert sum(path.stat().st_size for path in here.out.rglob("*") if path.is_file()) < 300 * 2**20


@pytest.mark.parametrize("name", ["../../x.jsonl", "/abs.jsonl", "..\\..\\x.jsonl", "rows.jsonl"])
def test_a31_an_archive_of_rows_is_not_unpacked(here: Ground, name: str) -> None:
    archive = zip_of(here.files / "rows.zip", {name: lines()})
    refused(lambda: sniff(archive), "zip")


def test_a33_twenty_thousand_columns(here: Ground) -> None:
    wide = put(here, "wide.csv", (",".join(f"c{n}" for n in range(20_000)) + "\n").encode() + (b"1" + b",1" * 19_999 + b"\n") * 3)
    refused(lambda: sniff(wide, "csv"), "at most 200")
    pq.write_table(pa.table({f"c{n}": ["x"] for n in range(20_000)}), here.files / "wide.parquet")
    refused(lambda: sniff(here.files / "wide.parquet"), "at most 200")


def test_a34_one_line_of_sixty_megabytes(here: Ground) -> None:
    outcome = take_rows(put(here, "long.jsonl", lines('{"prompt": "' + "x" * 60_000_000 + '", "completion": "y"}')), here.out)
    assert (outcome["ok"], problems(outcome)) == (False, [("line_too_long", 4)])


def test_what_the_site_keeps_of_a_gzip_is_read_once(here: Ground) -> None:
    assert take_rows(put(here, "good.jsonl.gz", gzip.compress(lines())), here.out)["ok"]
