"""The second pass: copies within and between splits with their lines, labels, turns, languages; and the verdict that blocks a launch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.data.examination import PAIRS, examine
from jobs.data.validation import ValidationRequest, validate
from jobs.spec import Mapping


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


LONG = "The parcel that was to come on Monday has not come yet and nobody at the counter could tell me where it is now"


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    train = [
        chat("How do I pay?", "By card.", label="billing"),
        chat(LONG, "I am sorry."),
        chat("How do I pay?", "By card.", label="billing"),
    ]
    test = [chat(LONG + " please", "I am sorry."), chat("How do I pay?", "By card.", label="billing"), chat("Who are you?", "Graft.")]
    files = {"train": write(tmp_path / "a.jsonl", [{}, *train]), "test": write(tmp_path / "b.jsonl", test)}
    mapping = Mapping("messages", {"messages": "messages"})
    assert validate(ValidationRequest(files, mapping, skip_bad_rows=True, validation_share=0, out=tmp_path / "out")).ok
    return tmp_path / "out"


def test_copies_are_counted_within_and_between_splits_and_listed_with_lines(checked: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = examine(
        checked, {"train": 3, "test": 3}, tmp_path, lines=checked / "check", progress=lambda phase, done, of: told.append((phase, done, of))
    )
    assert found["copies"] == {"within": {"train": 1}, "across": [{"split": "test", "other": "train", "rows": 1}]}
    assert found["near"]["across"] == [{"split": "test", "other": "train", "rows": 1}]
    assert found["near"]["within"] == {}
    assert told[-1] == ("comparing", 4, 4)
    pairs = [json.loads(line) for line in (tmp_path / PAIRS).read_text().splitlines()]
    places = [
        (one["kind"], one["split"], one["row"], one["line"], one["other_split"], one["other_row"], one["other_line"]) for one in pairs
    ]
    # The training file begins with a row that was skipped, so that lines and rows differ.
    assert places == [
        ("exact", "test", 1, 2, "train", 0, 2),
        ("near", "test", 0, 1, "train", 1, 3),
        ("exact", "train", 2, 4, "train", 0, 2),
    ]
    assert pairs[1]["text"].startswith("The parcel that was to come")


def test_turns_and_languages_are_counted(checked: Path, tmp_path: Path) -> None:
    found = examine(checked, {"train": 3, "test": 3}, tmp_path)
    assert found["turns"] == [{"turns": 2, "rows": 6, "more": 0}]
    assert found["languages"]["looked_at"] == 6
    assert found["languages"]["counts"][0]["code"] == "en"


def test_languages_of_this_projects_documents_are_told_apart() -> None:
    from jobs.data.languages import languages

    texts = {
        "fi": "Missä minun pakettini on, sen piti tulla jo eilen?",
        "uk": "Скажіть, будь ласка, де моя посилка? Вона мала бути тут ще вчора, але її досі немає.",
        "ru": "Где моя посылка, она должна была быть здесь ещё вчера?",
        "ko": "제 소포는 어디에 있나요? 어제 도착했어야 합니다.",
        "ja": "私の荷物はどこですか。昨日届くはずでした。",
        "de": "Wo ist mein Paket, es sollte schon gestern da sein?",
    }
    found = languages([*texts.values(), "ok", "12 34"])
    assert {one["code"] for one in found["counts"]} == set(texts)
    assert (found["looked_at"], found["unclear"]) == (8, 2)


CHATS = Mapping("messages", {"messages": "messages"})
PAIRS_OF_TEXTS = Mapping("prompt_completion", {"prompt": "prompt", "completion": "completion"})
LABELS = Mapping("classification", {"text": "text", "label": "label"})


@pytest.mark.parametrize(
    ("rows", "mapping", "code"),
    [
        ([{"messages": [{"role": "user", "content": "x"}]}] * 2, CHATS, "all_masked"),
        (
            [{"prompt": "x", "completion": " "}] * 2,
            PAIRS_OF_TEXTS,
            "all_empty",
        ),
        (
            [{"text": "a", "label": "x"}, {"text": "b", "label": "x"}],
            LABELS,
            "one_class",
        ),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], LABELS, None),
    ],
)
def test_rows_that_teach_nothing_block_a_launch(tmp_path: Path, rows: list[dict[str, Any]], mapping: Mapping, code: str | None) -> None:
    report = validate(ValidationRequest({"train": write(tmp_path / "a.jsonl", rows)}, mapping, validation_share=0)).report
    assert (report["blocking"] or {}).get("code") == code


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' + "{\n" * 300)
    mapping = Mapping("prompt_completion", {"prompt": "prompt", "completion": "completion"})
    validate(ValidationRequest({"train": tmp_path / "a.jsonl"}, mapping, out=tmp_path / "out"))
    listed = [json.loads(line) for line in (tmp_path / "out/check/problems.jsonl").read_text().splitlines()]
    assert [one["line"] for one in listed] == list(range(2, 302))
    assert {(one["code"], one["split"], one["severity"]) for one in listed} == {("json_invalid", "train", "error")}
