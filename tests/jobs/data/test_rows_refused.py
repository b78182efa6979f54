"""Rows that cannot be used: each named by its place, with the rows around it still read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.data.rows import Limits, Problem, Row
from jobs.data.sources import open_rows
from jobs.errors import UserError

GOOD = '{"text": "good"}'

BAD_LINES = [
    ("not closed", '{"text": "x"', "json_invalid", 13, "it ends in the middle of the row"),
    ("text not closed", '{"text": "x}', "json_invalid", 10, "never closed"),
    ("single quotes", "{'text': 'x'}", "json_invalid", 2, "double quotes"),
    ("trailing comma", '{"text": "x",}', "json_invalid", 14, "not valid JSON"),
    ("two objects on a line", GOOD + GOOD, "json_invalid", 17, "more text after the end"),
    ("a list", '["text"]', "json_not_object", None, "found a list"),
    ("a number", "7", "json_not_object", None, "found a number"),
    ("NaN", '{"text": NaN}', "json_number", None, "NaN"),
    ("Infinity", '{"text": -Infinity}', "json_number", None, "-Infinity"),
    ("a number beyond all bounds", '{"text": 1e999}', "json_number", None, "1e999"),
    ("a number of 6000 digits", '{"text": ' + "9" * 6000 + "}", "json_number", None, "6000 digits"),
    ("half a character", '{"text": "\\ud83d"}', "text_broken", None, "half of a character"),
    ("a zero character", '{"text": "\\u0000"}', "text_broken", None, "zero character"),
    ("a zero byte", '{"text": "\x00"}', "text_broken", 11, "zero byte"),
    ("a key twice", '{"text": "x", "text": "y"}', "json_duplicate_key", None, "'text'"),
    ("65 levels", '{"a":' + "[" * 64 + "]" * 64 + "}", "json_too_deep", None, "more than 64 deep"),
    ("100,000 levels", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "json_too_deep", None, "more than 64 deep"),
    ("100,000 levels, not closed", '{"a":' + "[" * 100_000, "json_too_deep", None, "more than 64 deep"),
]


@pytest.mark.parametrize(("line", "code", "column", "words"), [case[1:] for case in BAD_LINES], ids=[case[0] for case in BAD_LINES])
def test_bad_line_of_jsonl(tmp_path: Path, line: str, code: str, column: int | None, words: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n", encoding="utf-8")
    first, problem, last = list(open_rows(path))
    assert (first, last) == (Row(1, {"text": "good"}), Row(4, {"text": "good"}))
    assert isinstance(problem, Problem)
    assert (problem.code, problem.line, problem.column) == (code, 3, column)
    assert problem.message.startswith("Line 3")
    assert words in problem.message
    assert problem.remedy


def test_64_levels_are_read(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a":' + "[" * 63 + "]" * 63 + "}\n", encoding="utf-8")
    assert [type(item) for item in open_rows(path)] == [Row]


def test_a_whole_character_written_by_two_escapes_is_read(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "\\ud83d\\ude00"}\n', encoding="utf-8")
    assert list(open_rows(path)) == [Row(1, {"text": "😀"})]


def test_a_last_line_cut_short_is_named(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n{GOOD[:-4]}", encoding="utf-8")
    _, problem = list(open_rows(path))
    assert isinstance(problem, Problem)
    assert (problem.code, problem.line) == ("json_invalid", 2)


@pytest.mark.parametrize(("name", "ending"), [("rows.jsonl", "\n"), ("rows.txt", "\n"), ("rows.txt", "\r")])
def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, name: str, ending: str):
    path = tmp_path / name
    path.write_bytes(ending.join([GOOD, json.dumps({"text": "x" * 5000}), GOOD, ""]).encode())
    items = list(open_rows(path, Limits(line_characters=1000)))
    assert [(type(item), item.line) for item in items] == [(Row, 1), (Problem, 2), (Row, 3)]
    assert isinstance(items[1], Problem)
    assert items[1].message == "Line 2 is longer than 1,000 characters."


def test_bytes_that_are_no_utf8_are_named_while_the_rest_stays_utf8(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"text": "grüße aus köln"}\n'.encode() + b'{"text": "k\xf6ln"}\n')
    source = open_rows(path)
    first, problem = list(source)
    assert source.facts()["encoding"] == "UTF-8"
    assert first == Row(1, {"text": "grüße aus köln"})
    assert isinstance(problem, Problem)
    assert (problem.code, problem.line, problem.column) == ("text_broken", 2, 12)
    assert "0xF6" in problem.message


BAD_TABLES = [
    ("too few cells", "a,b\n1,2\n3\n4,5\n", "table_columns", 3, "1 cells, but the table has 2 columns"),
    ("too many cells", "a,b\n1,2\n3,4,5\n4,5\n", "table_columns", 3, "3 cells"),
    ("a zero byte", "a,b\n1,2\n\x003,3\n4,5\n", "text_broken", 3, "zero byte"),
    ("text after a closing quote", 'a,b\n1,2\n"3" x,3\n4,5\n', "table_quote", 3, "text stands after a closing quote"),
]


@pytest.mark.parametrize(("text", "code", "line", "words"), [case[1:] for case in BAD_TABLES], ids=[case[0] for case in BAD_TABLES])
def test_bad_row_of_a_table(tmp_path: Path, text: str, code: str, line: int, words: str):
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode())
    first, problem, last = list(open_rows(path))
    assert (first, last) == (Row(2, {"a": "1", "b": "2"}), Row(4, {"a": "4", "b": "5"}))
    assert isinstance(problem, Problem)
    assert (problem.code, problem.line) == (code, line)
    assert words in problem.message


def test_a_broken_header_costs_no_row(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xf6\xc3\xb6\xc3\xb6,b\n1,2\n")
    problem, row = list(open_rows(path))
    assert isinstance(problem, Problem)
    assert (problem.code, problem.line, row.line) == ("text_broken", 1, 2)


def test_a_quote_never_closed_is_named_at_the_row_that_opens_it(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,2\n"3,4\n5,6\n', encoding="utf-8")
    _, problem = list(open_rows(path))
    assert isinstance(problem, Problem)
    assert (problem.code, problem.line) == ("table_quote", 3)
    assert problem.message == "Line 3: a quote that is opened here is never closed (read up to line 4)."


def test_rows_after_a_quoted_line_end_keep_their_lines(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n"1\n1","2\n2"\n3,4\n', encoding="utf-8")
    assert [item.line for item in open_rows(path)] == [2, 5]


BAD_LISTS = [
    ("cut short", '[{"a": 1},\n {"a": 2}', 2, 10, "the file ends in the middle of the list"),
    ("cut short in a row", '[{"a": 1},\n {"a": "x', 2, 8, "never closed"),
    ("trailing comma", '[{"a": 1},\n]', 2, 1, "a comma before the closing ]"),
    ("no comma", '[{"a": 1}\n {"a": 2}]', 2, 2, "a comma or ] was expected here"),
    ("single quotes", "[{\n  'a': 1}]", 2, 3, "double quotes"),
    ("100,000 levels", '[{"a":' + "[" * 100_000 + "]" * 100_000 + "}]", 1, 2, "nested more than 64 deep"),
]


@pytest.mark.parametrize(("text", "line", "column", "words"), [case[1:] for case in BAD_LISTS], ids=[case[0] for case in BAD_LISTS])
def test_a_broken_json_list_is_refused_with_line_and_column(tmp_path: Path, text: str, line: int, column: int, words: str):
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        list(open_rows(path))
    assert refusal.value.code == "json_invalid"
    assert refusal.value.where == {"file": str(path), "line": line, "column": column}
    assert words in refusal.value.message


def test_bad_items_of_a_json_list_are_named_and_the_rest_is_read(tmp_path: Path):
    path = tmp_path / "rows.json"
    bad = ['{"a": [1, NaN, "]}"]}', '{"a": 1, "a": 2}', "[1]", '{"a": "\\ud800"}', '{"a":' + "[" * 70 + "]" * 70 + "}"]
    path.write_text("[" + ",\n".join(['{"a": 1}', *bad, '{"a": 2}']) + "]", encoding="utf-8")
    items = list(open_rows(path))
    codes = [item.code for item in items if isinstance(item, Problem)]
    assert codes == ["json_number", "json_duplicate_key", "json_not_object", "text_broken", "json_too_deep"]
    assert [item.line for item in items] == list(range(1, 8))
    assert [item.value for item in items if isinstance(item, Row)] == [{"a": 1}, {"a": 2}]


def test_a_long_json_list_is_read_in_steps(tmp_path: Path):
    path = tmp_path / "rows.json"
    rows = [{"text": 'ä\n"[{,' * (number * 6), "n": number} for number in range(600)]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    assert path.stat().st_size > 8_000_000
    assert [item.value for item in open_rows(path) if isinstance(item, Row)] == rows


def test_a_row_of_a_json_list_that_is_too_long_is_refused(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"a": 1}, {"a": "x" * 300_000}], indent=1), encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        list(open_rows(path, Limits(line_characters=100_000)))
    assert refusal.value.code == "line_too_long"
    assert refusal.value.where["line"] == 5
