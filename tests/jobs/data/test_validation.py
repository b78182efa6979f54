"""Validation: what the report says, and that files appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.data.records import read_records
from jobs.data.split import split_indices
from jobs.data.validation import ValidationRequest, validate
from jobs.errors import UserError
from jobs.spec import Mapping


def pair(number: int) -> dict[str, Any]:
    return {"prompt": f"question {number}", "completion": f"answer {number}"}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_clean_file_is_split_by_seed_and_written(tmp_path: Path):
    rows = [pair(number) for number in range(100)]
    train = write(tmp_path / "upload", rows)
    outcome = validate(ValidationRequest({"train": train}, validation_share=0.1, test_share=0.05, seed=3, out=tmp_path / "out"))
    assert outcome.ok
    assert (outcome.report["rows"], outcome.report["good"], outcome.report["bad"]) == (100, 100, 0)
    assert outcome.report["splits"] == {"train": 85, "validation": 10, "test": 5}
    left, test = split_indices(100, 0.05, 3, salt="test")
    kept, validation = split_indices(95, 0.1, 3)
    assert read(tmp_path / "out/test.jsonl") == [rows[index] for index in test]
    assert read(tmp_path / "out/validation.jsonl") == [rows[left[index]] for index in validation]
    assert read(tmp_path / "out/train.jsonl") == [rows[left[index]] for index in kept]
    for split, entry in outcome.manifest.items():
        content = (tmp_path / "out" / entry["file"]).read_bytes()
        assert entry == {
            "file": f"{split}.jsonl",
            "rows": outcome.report["splits"][split],
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    assert json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8")) == outcome.report
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "check",
        "report.json",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]


def test_the_same_request_gives_the_same_bytes(tmp_path: Path):
    train = write(tmp_path / "upload", [pair(number) for number in range(50)])
    first, second = (validate(ValidationRequest({"train": train}, seed=1, out=tmp_path / name)) for name in ("a", "b"))
    assert first == second


def test_what_is_written_reads_as_what_was_read(tmp_path: Path):
    """The layout of the written files is recognised again, label and weights included."""
    rows = [{"t": f"ticket {number}", "l": "ab"[number % 2]} for number in range(20)]
    train = write(tmp_path / "upload", rows)
    mapping = Mapping("classification", {"text": "t", "label": "l"}, "Name it.")
    validate(ValidationRequest({"train": train}, mapping, validation_share=0, out=tmp_path / "out"))
    assert [record for _, record in read_records(tmp_path / "out/train.jsonl", None)] == [
        record for _, record in read_records(train, mapping)
    ]


def test_bad_rows_refuse_the_file_and_nothing_is_written(tmp_path: Path):
    train = write(tmp_path / "upload", [pair(1), "{", pair(2) | {"completion": ""}, pair(3), {"prompt": 1, "completion": [2]}])
    outcome = validate(ValidationRequest({"train": train}, out=tmp_path / "out"))
    assert not outcome.ok
    assert outcome.manifest == {}
    assert outcome.report["counts"] == {"json_invalid": 1, "answer_empty": 1, "field_type": 1}
    assert outcome.report["empty_answers"] == 1
    assert [(found["line"], found["code"], found["split"]) for found in outcome.report["problems"]] == [
        (2, "json_invalid", "train"),
        (3, "answer_empty", "train"),
        (5, "field_type", "train"),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["check", "report.json"]


def test_bad_rows_are_left_out_by_choice_and_counted(tmp_path: Path):
    train = write(tmp_path / "upload", [pair(1), "{", pair(2), pair(3)])
    outcome = validate(ValidationRequest({"train": train}, skip_bad_rows=True, validation_share=0, out=tmp_path / "out"))
    assert outcome.ok
    assert (outcome.report["rows"], outcome.report["good"], outcome.report["bad"], outcome.report["skipped"]) == (4, 3, 1, 1)
    assert read(tmp_path / "out/train.jsonl") == [pair(1), pair(2), pair(3)]


def test_a_file_without_a_good_row_is_refused_even_if_bad_rows_may_be_skipped(tmp_path: Path):
    train = write(tmp_path / "upload", [pair(1) | {"completion": ""}])
    outcome = validate(ValidationRequest({"train": train}, skip_bad_rows=True, out=tmp_path / "out"))
    assert not outcome.ok
    assert [found["code"] for found in outcome.report["problems"]] == ["answer_empty", "no_rows"]
    assert not (tmp_path / "out/train.jsonl").exists()


def test_separate_files_are_kept_apart_and_their_overlap_is_said(tmp_path: Path):
    files = {
        "train": write(tmp_path / "a", [pair(1), pair(2), pair(2), pair(3)]),
        "validation": write(tmp_path / "b", [pair(4), pair(3)]),
        "test": write(tmp_path / "c", [pair(5), pair(1), pair(4)]),
    }
    outcome = validate(ValidationRequest(files, out=tmp_path / "out"))
    assert outcome.ok
    assert outcome.report["splits"] == {"train": 4, "validation": 2, "test": 3}
    found = outcome.report["duplicates"]
    assert found["within"] == {"train": 1, "validation": 0, "test": 0}
    assert found["across"] == [
        {"split": "validation", "other": "train", "rows": 1},
        {"split": "test", "other": "train", "rows": 1},
        {"split": "test", "other": "validation", "rows": 1},
    ]
    assert found["examples"] == [
        {"split": "train", "line": 3, "other": "train", "other_line": 2},
        {"split": "validation", "line": 2, "other": "train", "other_line": 4},
        {"split": "test", "line": 2, "other": "train", "other_line": 1},
        {"split": "test", "line": 3, "other": "validation", "other_line": 1},
    ]
    assert outcome.report["warning_counts"] == {"split_overlap": 3, "duplicate_rows": 1}
    assert outcome.report["notes"][0]["message"] == "Exact copies of rows that stand before them in train: 1."


def test_a_file_of_another_layout_is_refused(tmp_path: Path):
    files = {"train": write(tmp_path / "a", [pair(1)]), "test": write(tmp_path / "b", [{"text": "x"}])}
    with pytest.raises(UserError) as refusal:
        validate(ValidationRequest(files, out=tmp_path / "out"))
    assert refusal.value.code == "mapping_invalid"
    assert refusal.value.where["file"] == str(tmp_path / "b")
    assert not (tmp_path / "out").exists()


def test_figures_of_labelled_rows(tmp_path: Path):
    labels = ["a", "a", "b", "B"]
    train = write(tmp_path / "upload", [{"text": "x" * number, "label": label} for number, label in enumerate(labels, 1)])
    report = validate(ValidationRequest({"train": train}, validation_share=0)).report
    assert report["labels"] == {"distinct": 3, "counts": [{"label": "a", "rows": 2}, {"label": "B", "rows": 1}, {"label": "b", "rows": 1}]}
    assert report["characters"] == {"min": 2, "median": 3.5, "mean": 3.5, "p95": 4.85, "max": 5, "total": 14}
    assert report["answer_characters"] == {"min": 1, "median": 1.0, "mean": 1.0, "p95": 1.0, "max": 1, "total": 4}
    assert report["turns"]["max"] == 2
    assert [note["message"] for note in report["notes"]] == ["The labels 'B', 'b' differ in capitals or spaces only."]


def test_facts_of_the_file_are_said(tmp_path: Path):
    path = tmp_path / "upload.csv"
    path.write_bytes("text;label\r\nschön;gut\r\nübel;gut\r\n".encode("cp1252"))
    report = validate(ValidationRequest({"train": path}, validation_share=0)).report
    facts = report["files"]["train"]["facts"]
    assert (facts["encoding"], facts["separator"], facts["newline"]) == ("Windows-1252", "semicolon", "CRLF (Windows)")
    assert [note["code"] for note in report["notes"]] == ["encoding_guessed", "label_single"]


def test_only_the_first_200_problems_are_kept_but_all_are_counted(tmp_path: Path):
    train = write(tmp_path / "upload", [pair(1), *["{"] * 1000])
    report = validate(
        ValidationRequest({"train": train}, Mapping("prompt_completion", {"prompt": "prompt", "completion": "completion"}))
    ).report
    assert len(report["problems"]) == 200
    assert report["counts"] == {"json_invalid": 1000}


def test_an_older_version_in_the_folder_does_not_shine_through(tmp_path: Path):
    train = write(tmp_path / "upload", [pair(number) for number in range(10)])
    validate(ValidationRequest({"train": train}, test_share=0.2, out=tmp_path / "out"))
    assert (tmp_path / "out/test.jsonl").exists()
    validate(ValidationRequest({"train": train}, validation_share=0, out=tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["check", "report.json", "train.jsonl"]


def test_a_file_that_breaks_off_leaves_nothing_behind(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([pair(number) for number in range(100)])[:-20], encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        validate(ValidationRequest({"train": path}, out=tmp_path / "out"))
    assert refusal.value.code == "json_invalid"
    assert list((tmp_path / "out").iterdir()) == []


# The high-water mark of the child's own memory; what `wait4` reports would include its parent's.
MEASURED = """
import sys
from pathlib import Path
from jobs.__main__ import main
code = main(["validate", "--json"])
marks = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(marks[0], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
def test_memory_stays_bounded_for_200_000_rows(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    filler = "x" * 600
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f'{{"prompt": "{number} {filler}", "completion": "y"}}\n' for number in range(200_000))
    assert path.stat().st_size > 120_000_000
    request = json.dumps({"files": {"train": str(path)}, "out": str(tmp_path / "out")})
    done = subprocess.run([sys.executable, "-c", MEASURED], input=request, capture_output=True, text=True, check=True)
    *progress, last = done.stdout.splitlines()
    told = [json.loads(line)["data"] for line in progress]
    assert told
    assert {one["total"] for one in told} == {200_000}
    outcome = json.loads(last)
    assert outcome["ok"]
    assert outcome["report"]["splits"] == {"train": 190_000, "validation": 10_000}
    assert int(done.stderr) * 1024 < 100_000_000
