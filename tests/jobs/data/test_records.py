"""What training reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.data.records import read_records
from jobs.errors import UserError
from jobs.spec import Mapping

ROWS = '{"prompt": "a", "completion": "b"}\n\n{"prompt": "a"}\n{"prompt": "c", "completion": "d"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text(ROWS, encoding="utf-8")
    return file


def test_first_bad_row_stops_with_its_place(path: Path):
    records = read_records(path, None)
    assert next(records) == (1, {"prompt": "a", "completion": "b"})
    with pytest.raises(UserError) as refusal:
        next(records)
    assert refusal.value.to_json() == {
        "code": "field_missing",
        "message": "Line 3: 'completion' is missing.",
        "remedy": "Fill it in, choose another column, or skip the row.",
        "where": {"file": str(path), "line": 3},
    }
    assert refusal.value.exit_code == 78


def test_bad_rows_are_skipped_by_choice(path: Path):
    assert [line for line, _ in read_records(path, None, skip_bad_rows=True)] == [1, 4]


def test_mapping_that_does_not_fit_names_the_file(path: Path):
    with pytest.raises(UserError) as refusal:
        list(read_records(path, Mapping("text", {"text": "body"})))
    assert refusal.value.code == "mapping_invalid"
    assert refusal.value.where["file"] == str(path)


def test_column_of_a_field_that_may_lack_may_be_absent(path: Path):
    mapping = Mapping("alpaca", {"instruction": "prompt", "output": "completion", "input": "more"})
    assert len(list(read_records(path, mapping, skip_bad_rows=True))) == 2
