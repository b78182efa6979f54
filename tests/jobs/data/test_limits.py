"""A file that unpacks without end is stopped, by what really comes out of it and not by what it says of itself."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from jobs.data.rows import Limits
from jobs.data.sources import open_rows
from jobs.errors import UserError


def refused(path: Path, limits: Limits) -> UserError:
    with pytest.raises(UserError) as refusal:
        list(open_rows(path, limits))
    return refusal.value


def test_gzip_bomb_is_stopped_by_its_ratio(tmp_path: Path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "' + b"a" * 40_000_000 + b'"}\n'))
    error = refused(path, Limits())
    assert error.code == "file_ratio"
    assert error.message == "The file unpacks to more than 100 times its own size, as no real text does."


def test_gzip_is_stopped_by_its_size(tmp_path: Path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "row"}\n' * 10_000))
    assert refused(path, Limits(unpacked_bytes=100_000)).code == "file_too_large"
    assert len(list(open_rows(path))) == 10_000


def test_plain_file_is_stopped_by_its_size(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "row"}\n' * 10_000)
    error = refused(path, Limits(unpacked_bytes=100 * 2**10))
    assert (error.code, error.message) == ("file_too_large", "The file unpacks to more than 100 KiB.")


def test_parquet_bomb_is_stopped_while_it_is_read(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    text = pyarrow.array(["a" * 1000]).dictionary_encode()
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 300_000, pyarrow.int32()), text.dictionary)
    pyarrow.parquet.write_table(pyarrow.table({"text": column.cast(pyarrow.string())}), path)
    assert path.stat().st_size < 100_000
    assert refused(path, Limits(unpacked_bytes=10_000_000)).code == "file_too_large"


def test_rows_are_counted(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": str(number)}) + "\n" for number in range(101)), encoding="utf-8")
    assert refused(path, Limits(rows=100)).code == "rows_too_many"
    assert len(list(open_rows(path, Limits(rows=101)))) == 101
