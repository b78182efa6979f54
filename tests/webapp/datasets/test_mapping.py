"""Mapping and preview: layouts, their fields, what is shown of the rows."""

from __future__ import annotations

import html
import re

import pytest
from django.urls import reverse

from jobs.data.records import read_records
from tests.webapp.cast import Cast
from tests.webapp.datasets.steps import CSV, LABELLED, draft, form_of, lines, page, settle
from webapp.datasets.mapping import LAYOUTS
from webapp.datasets.services.preview import pieces
from webapp.datasets.services.validate import validate
from webapp.work.models import OutboxMessage


def test_a_change_of_the_mapping_renders_the_rows_anew(cast: Cast) -> None:
    version = draft(cast, CSV)
    client = cast.client(cast.bob)
    form = form_of(version, cast, **LABELLED, instruction="Say why:")
    part = client.post(reverse("datasets:preview", args=[version.pk]), form, headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in part
    assert "Say why:" in part
    assert re.search(r'class="learned">.*?versand</span>', part)
    assert not re.search(r'class="learned">[^<]*Paket', part)
    whole = client.post(reverse("datasets:preview", args=[version.pk]), {**form, "skip": "5"}).content.decode()
    assert "<html" in whole
    assert "Wo ist Paket 5?" in whole
    assert "Wo ist Paket 0?" not in whole
    version.refresh_from_db()
    assert (version.state, version.mapping) == ("draft", None)


def test_a_mapping_that_lacks_a_column_says_so(cast: Cast) -> None:
    version = draft(cast, CSV)
    form = form_of(
        version, cast, **{"format": "prompt_completion", "prompt_completion.prompt": "frage", "prompt_completion.completion": ""}
    )
    answer = cast.client(cast.bob).post(reverse("datasets:validate", args=[version.pk]), form)
    assert answer.status_code == 422
    assert "prompt_completion.completion" in answer.context["form"].errors
    version.refresh_from_db()
    assert version.state == "draft"
    assert not OutboxMessage.objects.exists()


def rows_of(tsv: str) -> bytes:
    """A CSV file of the lines of a text whose cells are separated by bars, each line ten times with a number."""
    head, *lines_ = tsv.split("\n")
    return "\n".join([head, *(line.replace("#", str(n)) for n in range(10) for line in lines_)]).encode()


PAIRS = rows_of("premise|hypothesis|label\nIt rains # times.|It is wet.|yes\nIt rains # times.|It is dry.|no")
RATED = rows_of("sentence|stars\nGood # times.|4.5\nBad # times.|1")
CHOICES = rows_of('query|options|correct\nWhich is red, #?|["sky","apple"]|B\nWhich is blue, #?|["sky","apple"]|A')
CONTEXT = "The ferry leaves the old harbour at noon."
SQUAD = [{"id": n, "question": f"Where from, {n}?", "context": CONTEXT, "answers": {"text": ["old harbour"], "answer_start": [21]}}
         for n in range(10)]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "layout", "learned", "given"),
    [
        (PAIRS, "sequence_classification", ["yes", "no"], ["It rains 0 times.", "It is dry."]),
        (RATED, "regression", ["4.5", "1"], ["Good 0 times."]),
        (CHOICES, "multiple_choice", ["apple", "sky"], ["Which is red, 0?", ">sky<"]),
        (lines(*SQUAD), "question_answering", ["old harbour"], ["Where from, 0?", ">The ferry leaves the <", "> at noon.<"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_layouts_of_tasks_are_recognised_shown_and_checked(
    cast: Cast, body: bytes, layout: str, learned: list[str], given: list[str]
) -> None:
    version = draft(cast, body, "rows.jsonl" if body[:1] == b"{" else "rows.csv")
    shown = page(version, cast)
    assert "those of this layout" in shown
    preview = re.sub(r'<span class="sr">.*?</span>', "", shown[shown.index('id="preview"') :])
    assert set(learned) <= set(re.findall(r'class="learned">([^<]*)<', preview))
    assert all(words in preview for words in given)
    settle(version, cast, validation_percent="10")
    assert version.mapping is not None
    assert version.mapping["format"] == layout
    validate(version.pk)
    version.refresh_from_db()
    assert (version.state, version.report["bad"]) == ("ready", 0)
    assert len(list(read_records(version.folder / "train.jsonl", None, task=layout))) == version.rows("train")  # type: ignore[arg-type]
    assert str(LAYOUTS[layout].name) in page(version, cast)  # type: ignore[index]


def test_a_row_that_does_not_fit_its_task_is_refused_with_line_field_and_remedy(cast: Cast) -> None:
    wrong = {**SQUAD[0], "answers": {"text": ["new harbour"], "answer_start": [21]}}
    version = settle(draft(cast, lines(*SQUAD, wrong), "squad.jsonl"), cast)
    validate(version.pk)
    version.refresh_from_db()
    assert version.state == "invalid"
    (problem,) = version.report["problems"]
    assert (problem["line"], problem["code"]) == (11, "answers_wrong")
    assert "begins at character 21 of the context, and it does not" in html.unescape(page(version, cast))
    assert "as SQuAD does" in page(version, cast)


def test_a_text_with_a_label_stays_one_for_writing_which_serves_classification_too(cast: Cast) -> None:
    version = draft(cast, rows_of("text|label\nGood #|yes\nBad #|no"))
    form = cast.client(cast.bob).get(reverse("datasets:version", args=[version.pk])).context["form"]
    assert form["format"].value() == "classification"
    assert form["sequence_classification.label"].value() == "label"


def test_a_task_layout_takes_no_instruction_whatever_the_form_sends(cast: Cast) -> None:
    version = settle(draft(cast, PAIRS), cast, instruction="Say why:")
    assert version.mapping is not None
    assert version.mapping["instruction"] == ""


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([], [("abcdef", False)]),
        ([[0, 2]], [("ab", True), ("cdef", False)]),
        ([[4, 6], [1, 2]], [("a", False), ("b", True), ("cd", False), ("ef", True)]),
        ([[1, 4], [2, 3], [3, 5]], [("a", False), ("bcd", True), ("e", True), ("f", False)]),
    ],
)
def test_a_text_is_cut_at_its_marks(marks: list[list[int]], expected: list[tuple[str, bool]]) -> None:
    assert pieces("abcdef", marks) == expected
