"""Which kinds of files are read, and which are refused with what words. Each file is made here."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.data.rows import Problem, Row
from jobs.data.sources import open_rows
from jobs.errors import UserError

TABLE = "id,name\n1,english\n2,中国人\n"
ROWS = [{"id": "1", "name": "english"}, {"id": "2", "name": "中国人"}]
OBJECTS = [{"id": 1, "name": "english"}, {"id": 2, "name": "中国人"}]


def lines(objects: list[object]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, TABLE)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("table.csv"))
    return buffer.getvalue()


def parquet(objects: list[dict[str, object]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), buffer)
    return buffer.getvalue()


@dataclass(frozen=True)
class Read:
    """A file that is read: the facts that are said, and its rows."""

    kind: str
    content: bytes
    facts: dict[str, object]
    rows: list[dict[str, object]]
    name: str = "upload"
    warnings: tuple[str, ...] = ()


READ = [
    Read("JSONL", lines(OBJECTS).encode(), {"kind": "jsonl", "encoding": "UTF-8", "newline": "LF"}, OBJECTS),
    Read(
        "JSONL with a BOM and Windows line ends",
        b"\xef\xbb\xbf" + lines(OBJECTS).replace("\n", "\r\n").encode(),
        {"kind": "jsonl", "encoding": "UTF-8 with BOM", "newline": "CRLF (Windows)"},
        OBJECTS,
    ),
    Read(
        "JSONL packed with gzip, whatever its name",
        gzip.compress(lines(OBJECTS).encode()),
        {"kind": "jsonl", "compressed": "gzip"},
        OBJECTS,
        "train.jsonl",
    ),
    Read("JSONL named .json", lines(OBJECTS).encode(), {"kind": "jsonl"}, OBJECTS, "rows.json"),
    Read(
        "JSONL without a last line end, with blank lines", lines(OBJECTS).strip().replace("\n", "\n\n").encode(), {"kind": "jsonl"}, OBJECTS
    ),
    Read("JSON list", json.dumps(OBJECTS).encode(), {"kind": "json", "numbers_count": "row"}, OBJECTS),
    Read("JSON list named .jsonl", json.dumps(OBJECTS, indent=2).encode(), {"kind": "json"}, OBJECTS, "rows.jsonl"),
    Read("JSON object that holds the list", json.dumps({"version": "1", "data": OBJECTS, "more": [1]}).encode(), {"kind": "json"}, OBJECTS),
    Read("JSON objects over several lines", "\n".join(json.dumps(one, indent=2) for one in OBJECTS).encode(), {"kind": "json"}, OBJECTS),
    Read("nested JSON", json.dumps([{"a": {"b": [{"c": 1}]}}], indent=1).encode(), {"kind": "json"}, [{"a": {"b": [{"c": 1}]}}]),
    Read("CSV", TABLE.encode(), {"kind": "csv", "separator": "comma", "header": True, "columns": ["id", "name"]}, ROWS),
    Read("CSV packed with gzip", gzip.compress(TABLE.encode()), {"kind": "csv", "compressed": "gzip"}, ROWS, "table.csv.gz"),
    Read("CSV with semicolons", TABLE.replace(",", ";").encode(), {"separator": "semicolon"}, ROWS),
    Read("CSV with bars", TABLE.replace(",", "|").encode(), {"separator": "bar"}, ROWS),
    Read("TSV", TABLE.replace(",", "\t").encode(), {"separator": "tab"}, ROWS),
    Read(
        "CSV with the separator named by Excel",
        ("sep=;\n" + TABLE.replace(",", ";")).replace("\n", "\r\n").encode(),
        {"separator": "semicolon"},
        ROWS,
    ),
    Read("CSV in UTF-8 with BOM", b"\xef\xbb\xbf" + TABLE.encode(), {"encoding": "UTF-8 with BOM", "columns": ["id", "name"]}, ROWS),
    Read("CSV in UTF-16 with BOM", TABLE.encode("utf-16"), {"encoding": "UTF-16"}, ROWS),
    Read(
        "CSV in UTF-16 without BOM",
        ("id,name\n1,english words and more of them\n").encode("utf-16-be"),
        {"encoding": "UTF-16 (big endian)"},
        [{"id": "1", "name": "english words and more of them"}],
    ),
    Read(
        "CSV in Windows-1252",
        "id,name\n1,Müller “x”\n".encode("cp1252"),
        {"encoding": "Windows-1252", "encoding_guessed": True},
        [{"id": "1", "name": "Müller “x”"}],
        warnings=("encoding_guessed",),
    ),
    Read("CSV with Windows line ends", TABLE.replace("\n", "\r\n").encode(), {"newline": "CRLF (Windows)"}, ROWS),
    Read(
        "CSV with line ends of old Macs",
        b'a,b\r1,2\r"Once upon\ra time",5\r',
        {"newline": "CR (old Mac)"},
        [{"a": "1", "b": "2"}, {"a": "Once upon\ra time", "b": "5"}],
    ),
    Read(
        "CSV with mixed line ends",
        b"a,b\r\n1,2\n3,4\r\n",
        {"newline": "mixed"},
        [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}],
        warnings=("newline_mixed",),
    ),
    Read(
        "CSV with quotes and line ends within quotes",
        b'a,b\n"say ""hi""","two\nlines"\n',
        {"kind": "csv"},
        [{"a": 'say "hi"', "b": "two\nlines"}],
        "x.csv",
    ),
    Read(
        "CSV with quotes escaped by a backslash",
        b'a,b\n1, "say \\"hi\\" now"\n2, "x"\n',
        {"kind": "csv"},
        [{"a": "1", "b": 'say "hi" now'}, {"a": "2", "b": "x"}],
        "escaped.csv",
    ),
    Read(
        "CSV without a header",
        b"1,english\n2,german\n",
        {"header": False, "columns": ["column_1", "column_2"]},
        [{"column_1": "1", "column_2": "english"}, {"column_1": "2", "column_2": "german"}],
        warnings=("header_missing",),
    ),
    Read(
        "CSV with a blank header",
        b"id,,age\n7,John,30\n",
        {"columns": ["id", "column_2", "age"]},
        [{"id": "7", "column_2": "John", "age": "30"}],
        warnings=("header_renamed",),
    ),
    Read(
        "CSV with a name twice",
        b"id,name,id\n7,John,30\n",
        {"columns": ["id", "name", "id_2"]},
        [{"id": "7", "name": "John", "id_2": "30"}],
        warnings=("header_renamed",),
    ),
    Read(
        "CSV with a title or a comment above the header",
        ("# a comment\n" + TABLE).encode(),
        {"columns": ["id", "name"]},
        ROWS,
        "t.csv",
        warnings=("lines_skipped",),
    ),
    Read(
        "CSV with a line end within a header",
        b'"the\nname",b\nx,y\n',
        {"columns": ["the name", "b"]},
        [{"the name": "x", "b": "y"}],
        "t.csv",
    ),
    Read("CSV with empty rows", b"id,name\n1,a\n,\n\n2,b\n", {"kind": "csv"}, [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}]),
    Read("CSV with numbers in comma decimals", b'a,b\n"1,7","200.000"\n', {"kind": "csv"}, [{"a": "1,7", "b": "200.000"}], "n.csv"),
    Read("CSV with a header alone", b"id,name\n", {"kind": "csv", "header": True}, [], "h.csv"),
    Read(
        "CSV of one column",
        b"review\nnice, really\nbad\n",
        {"columns": ["review"], "separator": None},
        [{"review": "nice, really"}, {"review": "bad"}],
        "one.csv",
    ),
    Read("CSV with a very long cell", b"a,b\n1," + b"x" * 200_000 + b"\n", {"kind": "csv"}, [{"a": "1", "b": "x" * 200_000}], "long.csv"),
    Read(
        "plain text, a row a line",
        b"one\ntwo, or more\n",
        {"kind": "text", "rows_are": "lines"},
        [{"text": "one"}, {"text": "two, or more"}],
    ),
    Read(
        "plain text, paragraphs",
        b"one\nstill one\n\ntwo\n",
        {"rows_are": "paragraphs"},
        [{"text": "one\nstill one"}, {"text": "two"}],
        "book.txt",
    ),
    Read("Parquet", parquet(OBJECTS), {"kind": "parquet", "encoding": None, "columns": ["id", "name"]}, OBJECTS),
]


@pytest.mark.parametrize("case", READ, ids=lambda case: case.kind)
def test_is_read(tmp_path: Path, case: Read):
    path = tmp_path / case.name
    path.write_bytes(case.content)
    source = open_rows(path)
    items = list(source)
    assert not [item for item in items if isinstance(item, Problem)]
    assert [item.value for item in items if isinstance(item, Row)] == case.rows
    facts = source.facts()
    assert {name: facts[name] for name in case.facts} == case.facts
    assert tuple(warning.code for warning in source.warnings) == case.warnings


REFUSED: list[tuple[str, bytes | Callable[[], bytes], str, str]] = [
    ("empty file", b"", "file_empty", "empty"),
    ("only line ends", b"\n \r\n", "file_empty", "empty"),
    ("Excel workbook", zipped("[Content_Types].xml", "xl/workbook.xml"), "file_foreign", "an Excel workbook (.xlsx)"),
    ("old Excel workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "file_foreign", "an old Excel or Word file"),
    (
        "OpenDocument spreadsheet",
        zipped("mimetype-application/vnd.oasis.opendocument.spreadsheet"),
        "file_foreign",
        "an OpenDocument spreadsheet",
    ),
    ("Word document", zipped("word/document.xml"), "file_foreign", "a Word document"),
    ("zip archive", zipped("table.csv", "other.csv"), "file_foreign", "a zip archive"),
    ("tar archive", tarred(), "file_foreign", "a tar archive"),
    ("bzip2", bz2.compress(TABLE.encode()), "file_foreign", "bzip2"),
    ("xz", lzma.compress(TABLE.encode()), "file_foreign", "xz"),
    ("Zstandard", b"\x28\xb5\x2f\xfd" + bytes(20), "file_foreign", "Zstandard"),
    ("PDF", b"%PDF-1.7\n" + bytes(20), "file_foreign", "a PDF document"),
    ("picture", b"\x89PNG\r\n\x1a\n" + bytes(20), "file_foreign", "a picture"),
    ("pickle", pickle.dumps(OBJECTS), "file_foreign", "a Python pickle"),
    ("Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n", "file_foreign", "a Git LFS pointer"),
    ("web page", b"\n<!DOCTYPE html><html><body>404</body></html>", "file_foreign", "a web page"),
    ("XML", b"<?xml version='1.0'?><rows/>", "file_foreign", "an XML document"),
    ("gzip of a gzip", gzip.compress(gzip.compress(TABLE.encode())), "file_foreign", "packed with gzip once more"),
    ("gzip of a Parquet file", lambda: gzip.compress(parquet(OBJECTS)), "file_foreign", "a Parquet file packed with gzip"),
    ("gzip cut short", gzip.compress(lines(OBJECTS * 99).encode())[:-9], "file_damaged", "ends in the middle"),
    ("something else with gzip's first bytes", b"\x1f\x8b" + bytes(50), "file_damaged", "gzip file is damaged"),
    ("Parquet cut short", lambda: parquet(OBJECTS)[:-40], "file_damaged", "Parquet file is damaged"),
    ("binary data", bytes(range(256)) * 40, "file_kind_unknown", "binary data"),
    (
        "text in an encoding we do not know",
        "これは日本語の文章です\n".encode("shift-jis") * 9,
        "encoding_unknown",
        "neither UTF-8 nor UTF-16",
    ),
    (
        "more than 200 columns",
        ",".join(f"c{number}" for number in range(201)).encode() + b"\n" + b"1," * 200 + b"1\n",
        "columns_too_many",
        "201",
    ),
    ("JSON object with more than 200 keys", json.dumps(dict.fromkeys(map(str, range(300)), 1)).encode(), "columns_too_many", "300"),
]


@pytest.mark.parametrize(("content", "code", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_is_refused(tmp_path: Path, content: bytes | Callable[[], bytes], code: str, words: str):
    path = tmp_path / "upload"
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(UserError) as refusal:
        list(open_rows(path))
    assert refusal.value.code == code
    assert words in refusal.value.message
    assert refusal.value.remedy
    assert refusal.value.where["file"] == str(path)


def test_a_missing_file_is_said(tmp_path: Path):
    with pytest.raises(UserError) as refusal:
        open_rows(tmp_path / "nothing")
    assert refusal.value.code == "file_missing"
