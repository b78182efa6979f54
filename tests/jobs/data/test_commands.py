"""`python -m jobs sniff | preview | validate`, as the web half calls them: a process, JSON in and out."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main

CSV = 'text;label\n"Grüße; ""Welt""";hello\nbye;\n<b>x</b>;bye\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "upload"
    file.write_text(CSV, encoding="utf-8")
    return file


def call(*arguments: str | Path, request: Any = None) -> tuple[int, Any, Any]:
    text = "" if request is None else json.dumps(request)
    done = subprocess.run([sys.executable, "-m", "jobs", *arguments], input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def called(*arguments: str | Path, request: Any = None) -> Any:
    code, out, err = call(*arguments, "--json", request=request)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_sniff(path: Path):
    found = called("sniff", path)
    assert found["facts"] == {
        "kind": "csv",
        "bytes": len(CSV.encode()),
        "compressed": None,
        "encoding": "UTF-8",
        "encoding_guessed": False,
        "newline": "LF",
        "lines": 4,
        "separator": "semicolon",
        "header": True,
        "rows_are": None,
        "columns": ["text", "label"],
        "numbers_count": "line",
    }
    assert found["rows_seen"] == 3
    assert found["sample"][0] == {"line": 2, "value": {"text": 'Grüße; "Welt"', "label": "hello"}}
    assert (found["warnings"], found["problems"]) == ([], [])
    best = found["suggestions"][0]
    assert best["mapping"] == {"format": "classification", "columns": {"text": "text", "label": "label"}, "instruction": ""}


def test_preview_shows_records_problems_and_what_is_trained_on(path: Path):
    mapping = {"format": "classification", "columns": {"text": "text", "label": "label"}, "instruction": "Name it."}
    shown = called("preview", path, request={"mapping": mapping, "rows": 2, "skip": 0})
    assert shown["mapping"] == mapping
    assert not shown["end"]
    assert shown["rows"][0] == {
        "line": 2,
        "label": "hello",
        "warnings": [],
        "parts": [
            {"role": "user", "content": 'Name it.\n\nGrüße; "Welt"', "trained": False},
            {"role": "assistant", "content": "hello", "trained": True},
        ],
    }
    assert shown["rows"][1]["line"] == 3
    assert shown["rows"][1]["problem"]["code"] == "answer_empty"
    rest = called("preview", path, request={"mapping": mapping, "rows": 2, "skip": 2})
    assert rest["end"]
    assert [part["content"] for part in rest["rows"][0]["parts"]] == ["Name it.\n\n<b>x</b>", "bye"]


def test_preview_recognises_the_mapping_where_none_is_given(path: Path):
    assert called("preview", path)["mapping"]["format"] == "classification"


def test_validate(path: Path, tmp_path: Path):
    out = tmp_path / "out"
    request = {
        "files": {"train": str(path), "validation": None, "test": None},
        "mapping": {},
        "skip_bad_rows": True,
        "validation_share": 0.05,
        "test_share": 0.0,
        "seed": 0,
        "out": str(out),
    }
    outcome = called("validate", request=request)
    assert outcome["ok"]
    assert outcome["report"]["skipped"] == 1
    assert {split: entry["rows"] for split, entry in outcome["manifest"].items()} == {"train": 1, "validation": 1}
    refused = called("validate", request=request | {"skip_bad_rows": False})
    assert (refused["ok"], refused["manifest"]) == (False, {})


def test_file_that_is_refused_as_a_whole(tmp_path: Path):
    path = tmp_path / "upload"
    path.write_bytes(b"%PDF-1.4\n")
    for arguments, request in [(("sniff", path), None), (("preview", path), {}), (("validate",), {"files": {"train": str(path)}})]:
        code, out, err = call(*arguments, "--json", request=request)
        assert (code, out) == (78, "")
        error = json.loads(err)["error"]
        assert (error["code"], error["where"]) == ("file_foreign", {"file": str(path)})
        assert error["message"] == "This is a PDF document, not a file of text rows."


@pytest.mark.parametrize(
    ("command", "body", "reason"),
    [
        ("preview", {"rows": -1}, "'rows' is not a whole number from 0 to 200"),
        ("preview", {"row": 1}, "unknown field 'row'"),
        ("preview", [], "it is not a JSON object"),
        ("validate", {"files": {}}, "'files' has no 'train'"),
        ("validate", {"files": {"train": "x"}, "seed": True}, "'seed' is not a whole number"),
        ("validate", {"files": {"train": "x"}, "validation_share": 1}, "'validation_share' is not a number"),
        ("validate", {"files": {"train": "x"}, "skip_bad_rows": 1}, "'skip_bad_rows' is not true or false"),
        ("validate", {"files": {"training": "x"}}, "'files' is not an object with texts for train, validation, test"),
    ],
)
def test_request_that_cannot_be_read(
    command: str, body: Any, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(body)))
    assert main([command, *(["upload"] if command == "preview" else []), "--json"]) == 78
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == "request_invalid"
    assert reason in error["message"]


def test_words_for_people(path: Path):
    code, out, _ = call("sniff", path)
    assert (code, out.splitlines()[0]) == (0, "csv, UTF-8, LF, semicolon")
    code, out, _ = call("preview", path)
    assert (code, out.splitlines()[2]) == (0, "* assistant: hello")
    code, out, _ = call("validate", path)
    assert (code, out.splitlines()[0]) == (0, "not usable: 3 rows, 2 good, 1 bad, classification")


def test_nothing_heavy_is_loaded():
    """These run in every bounded child: half a second of imports would be most of their time."""
    script = """
import sys
import jobs.commands.preview, jobs.commands.sniff, jobs.commands.validate, jobs.data.records
print([name for name in ("torch", "transformers", "pyarrow", "numpy", "django") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
