"""From a file to a ready version: recognised, mapped, previewed, validated, by the real engine in the real box."""

from __future__ import annotations

import gzip
import html
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.urls import reverse
from django.utils import timezone

from jobs.data.records import read_records
from jobs.errors import UserError
from jobs.spec import Mapping
from tests.webapp.cast import Cast
from webapp.celery import app
from webapp.core.locks import alone
from webapp.datasets.mapping import LAYOUTS
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.datasets.services.preview import pieces
from webapp.datasets.services.reconcile import reconcile
from webapp.datasets.services.register_files import create_dataset_from_files
from webapp.datasets.services.start_validation import Choices, start_validation
from webapp.datasets.services.validate import manifest_sha256, validate
from webapp.work.models import OutboxMessage

CSV = b"frage;absicht\n" + b"".join(b"Wo ist Paket %d?;%s\n" % (n, (b"versand", b"rechnung")[n % 2]) for n in range(40))
LABELLED = {"format": "classification", "classification.text": "frage", "classification.label": "absicht"}
GOOD = {"prompt": "Two and two?", "completion": "Four."}


def upload(cast: Cast, body: bytes, filename: str = "rows.csv", name: str = "Tickets", **files: bytes) -> HttpResponse:
    data: dict[str, Any] = {"name": name, "train_file": SimpleUploadedFile(filename, body)}
    data |= {f"{split}_file": SimpleUploadedFile(f"{split}.jsonl", content) for split, content in files.items()}
    return cast.client(cast.bob).post(reverse("datasets:new", args=["night"]), data)


def lines(*rows: Any) -> bytes:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()


def draft(cast: Cast, body: bytes, filename: str = "rows.csv", **files: bytes) -> DatasetVersion:
    answer = upload(cast, body, filename, **files)
    assert answer.status_code == 302, re.findall(r"<li>(.*?)</li>", answer.content.decode())
    return DatasetVersion.objects.get()


def form_of(version: DatasetVersion, cast: Cast, **changes: Any) -> dict[str, Any]:
    """What a browser would send of the mapping form as it stands."""
    page = cast.client(cast.bob).get(reverse("datasets:version", args=[version.pk]))
    form = page.context["form"]
    values = {field.html_name: field.value() for field in form if field.value() is not None and field.value() is not False}
    return {**values, **changes}


def page(version: DatasetVersion, cast: Cast) -> str:
    return cast.client(cast.vera).get(reverse("datasets:version", args=[version.pk])).content.decode()


# -- new files -------------------------------------------------------------------------------------------------------


def test_a_plain_form_makes_a_draft_and_says_what_it_recognised(cast: Cast) -> None:
    version = draft(cast, "\ufeff".encode() + CSV.replace(b"\n", b"\r\n"), "Tickets März.CSV")
    assert version.state == "draft"
    assert version.train_upload.filename == "Tickets März.CSV"
    facts = version.sniffed["facts"]
    assert (facts["kind"], facts["separator"], facts["columns"]) == ("csv", "semicolon", ["frage", "absicht"])
    shown = page(version, cast)
    for words in ("UTF-8", "semicolon", "frage, absicht", "Wo ist Paket 0?"):
        assert words in shown


def test_a_file_uploaded_before_is_taken_by_its_id(cast: Cast) -> None:
    first = draft(cast, CSV)
    known = {"name": "Again", "train_upload": str(first.train_upload_id)}
    answer = cast.client(cast.bob).post(reverse("datasets:new", args=["night"]), known)
    assert answer.status_code == 302
    assert DatasetVersion.objects.filter(train_upload=first.train_upload).count() == 2


@pytest.mark.parametrize("which", ["of another team", "incomplete", "of nobody"])
def test_an_upload_that_cannot_be_taken(cast: Cast, which: str) -> None:
    team = cast.other_team if which == "of another team" else cast.team
    later = timezone.now() + timedelta(hours=1)
    row = Upload.objects.create(team=team, created_by=cast.bob, filename="a", bytes_total=9, bytes_received=3, expires_at=later)
    known = row.pk if which != "of nobody" else cast.bob.pk
    answer = cast.client(cast.bob).post(reverse("datasets:new", args=["night"]), {"name": "x", "train_upload": str(known)})
    assert answer.status_code == 422
    assert ("is not complete" if which == "incomplete" else "no longer there") in answer.content.decode()
    assert not Dataset.objects.exists()


@pytest.mark.parametrize(
    ("filename", "body", "words"),
    [
        ("a.xlsx", b"PK\x03\x04" + b"\0" * 26 + b"xl/workbook.xml", "an Excel workbook (.xlsx)"),
        ("a.csv", b"", "The file is empty"),
        ("a.jsonl", b"\x80\x04\x95" + b"\x00" * 200, "not a file of text rows"),
    ],
)
def test_a_file_that_is_no_file_of_rows_makes_no_dataset(cast: Cast, filename: str, body: bytes, words: str) -> None:
    answer = upload(cast, body, filename)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert not Dataset.objects.exists()


def test_a_bad_test_file_is_named_at_its_field(cast: Cast) -> None:
    answer = upload(cast, lines(GOOD, GOOD), "a.jsonl", test=b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    assert answer.status_code == 422
    assert answer.context["form"].errors.keys() == {"test_file"}


def test_a_taken_name(cast: Cast) -> None:
    draft(cast, CSV)
    answer = upload(cast, CSV)
    assert answer.status_code == 422
    assert answer.context["form"].errors.keys() == {"name"}


def test_hostile_text_stays_text(cast: Cast) -> None:
    evil = "<script>alert(1)</script>"
    version = draft(cast, lines({"prompt": evil, "completion": evil}), f"{evil}.jsonl")
    Dataset.objects.update(name=evil)
    for url in (reverse("datasets:version", args=[version.pk]), reverse("datasets:list", args=["night"])):
        shown = cast.client(cast.vera).get(url).content.decode()
        assert evil not in shown
        assert "&lt;script&gt;alert(1)" in shown


# -- mapping and preview ---------------------------------------------------------------------------------------------


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


# -- validation ------------------------------------------------------------------------------------------------------


def settle(version: DatasetVersion, cast: Cast, **changes: Any) -> DatasetVersion:
    answer = cast.client(cast.bob).post(reverse("datasets:validate", args=[version.pk]), form_of(version, cast, **changes))
    assert answer.status_code == 302
    version.refresh_from_db()
    return version


def test_validation_is_announced_and_gives_a_version_that_never_changes(cast: Cast) -> None:
    version = settle(draft(cast, CSV), cast, **LABELLED, validation_percent="10", test_percent="20")
    assert version.state == "validating"
    assert [(ring.task, ring.subject, ring.queue) for ring in OutboxMessage.objects.all()] == [("datasets.validate", version.pk, "short")]
    assert 'hx-trigger="every 1s"' in page(version, cast)
    validate(version.pk)
    version.refresh_from_db()
    assert version.state == "ready"
    assert {split: file["rows"] for split, file in version.manifest.items()} == {"train": 29, "validation": 3, "test": 8}
    assert version.sha256 == manifest_sha256(version.manifest)
    assert [len(list(read_records(version.folder / f"{split}.jsonl", None))) for split in version.manifest] == [29, 3, 8]
    shown = page(version, cast)
    assert reverse("runs:new", args=["night"]) not in shown
    assert (
        f"{reverse('runs:new', args=['night'])}?dataset={version.pk}"
        in cast.client(cast.bob).get(reverse("datasets:version", args=[version.pk])).content.decode()
    )
    before = DatasetVersion.objects.filter(pk=version.pk).values().get()
    validate(version.pk)
    with pytest.raises(UserError) as refused:
        start_validation(version, Choices(Mapping("text", {"text": "frage"})))
    assert refused.value.code == "version_fixed"
    assert DatasetVersion.objects.filter(pk=version.pk).values().get() == before
    assert OutboxMessage.objects.count() == 1


def test_bad_rows_are_refused_with_their_lines_and_skipped_only_by_choice(cast: Cast) -> None:
    version = settle(
        draft(cast, lines(GOOD, "{broken", {"prompt": "x", "completion": ""}, {**GOOD, "prompt": "other"}), "rows.jsonl"), cast
    )
    validate(version.pk)
    version.refresh_from_db()
    assert version.state == "invalid"
    assert not version.folder.exists()
    assert [problem["line"] for problem in version.report["problems"]] == [2, 3]
    assert "2 of 4 rows cannot be used" in page(version, cast)
    cast.client(cast.bob).post(reverse("datasets:skip-bad-rows", args=[version.pk]))
    version.refresh_from_db()
    assert (version.state, version.skip_bad_rows, OutboxMessage.objects.count()) == ("validating", True, 2)
    validate(version.pk)
    version.refresh_from_db()
    assert version.state == "ready"
    assert sum(file["rows"] for file in version.manifest.values()) == 2
    assert "2 rows were skipped by choice" in page(version, cast)


def test_separate_files_stay_separate(cast: Cast) -> None:
    rows = [{"prompt": str(n), "completion": "x"} for n in range(6)]
    version = settle(draft(cast, gzip.compress(lines(*rows[:3])), "rows.jsonl.gz", validation=lines(rows[3]), test=lines(*rows[4:])), cast)
    validate(version.pk)
    version.refresh_from_db()
    assert {split: file["rows"] for split, file in version.manifest.items()} == {"train": 3, "validation": 1, "test": 2}


def test_a_file_that_bursts_the_box_ends_with_a_message(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    from webapp.datasets.services import validate as module

    version = settle(draft(cast, lines(GOOD), "rows.jsonl"), cast)
    monkeypatch.setattr(module, "LIMITS", module.Limits(cpu_seconds=1, wall_seconds=0.05))
    validate(version.pk)
    version.refresh_from_db()
    assert version.state == "invalid"
    assert "longer than 0.05 seconds" in version.message
    assert "longer than 0.05 seconds" in page(version, cast)


def test_a_second_copy_of_the_task_does_nothing(cast: Cast) -> None:
    version = settle(draft(cast, lines(GOOD), "rows.jsonl"), cast)
    with alone(version.folder.with_suffix(".lock")) as mine:
        assert mine
        validate(version.pk)
    version.refresh_from_db()
    assert version.state == "validating"
    assert not version.folder.exists()


def test_the_task_is_registered_under_its_name_and_acknowledged_late(cast: Cast) -> None:
    app.loader.import_default_modules()
    task = app.tasks["datasets.validate"]
    assert (task.acks_late, task.time_limit, task.soft_time_limit) == (True, 300, 270)
    version = settle(draft(cast, lines(GOOD, {**GOOD, "prompt": "b"}), "rows.jsonl"), cast)
    task(str(version.pk))
    version.refresh_from_db()
    assert version.state == "ready"


def test_what_a_killed_validation_left_is_cleared(cast: Cast) -> None:
    version = settle(draft(cast, lines(GOOD, {**GOOD, "prompt": "b"}), "rows.jsonl"), cast)
    version.folder.mkdir(parents=True)
    (version.folder / "old.jsonl").write_text("old")
    left = version.folder.parent / f".{version.pk}-abc"
    left.mkdir()
    validate(version.pk)
    assert sorted(path.name for path in version.folder.iterdir()) == ["report.json", "train.jsonl", "validation.jsonl"]
    assert not left.exists()


def test_a_lost_doorbell_rings_again_and_only_then(cast: Cast) -> None:
    version = settle(draft(cast, lines(GOOD), "rows.jsonl"), cast)
    reconcile()
    assert OutboxMessage.objects.count() == 1
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(minutes=5))
    reconcile()
    reconcile()
    assert OutboxMessage.objects.filter(subject=version.pk).count() == 2


# -- versions and files of the host ----------------------------------------------------------------------------------


def test_a_new_version_keeps_the_mapping_and_counts_on(cast: Cast) -> None:
    first = settle(draft(cast, CSV), cast, **{"format": "text", "text.text": "frage"})
    client = cast.client(cast.bob)
    answer = client.post(reverse("datasets:new-version", args=[first.dataset_id]), {"train_file": SimpleUploadedFile("b.csv", CSV)})
    second = DatasetVersion.objects.get(number=2)
    assert answer["Location"] == reverse("datasets:version", args=[second.pk])
    assert (second.mapping, second.state) == (first.mapping, "draft")
    assert "@2" in client.get(reverse("datasets:detail", args=[first.dataset_id])).content.decode()


def test_files_of_the_host_become_a_ready_version(cast: Cast, tmp_path: Path) -> None:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_bytes(lines(*({"prompt": str(n), "completion": "x"} for n in range(20))))
    test.write_bytes(lines({"prompt": "t", "completion": "y"}))
    version = create_dataset_from_files(cast.team, cast.alice, "Sample", {"train": train, "test": test})
    assert version.state == "ready"
    assert (version.rows("train"), version.rows("validation"), version.rows("test")) == (19, 1, 1)
    assert version.train_upload.path.read_bytes() == train.read_bytes()


def test_files_of_the_host_that_are_no_good(cast: Cast, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(GOOD, "{"))
    with pytest.raises(UserError):
        create_dataset_from_files(cast.team, cast.alice, "Sample", {"train": tmp_path / "a.jsonl"})


def test_the_list_asks_the_database_a_fixed_number_of_times(cast: Cast, django_assert_num_queries: Any) -> None:
    version = draft(cast, CSV)
    client, url = cast.client(cast.vera), reverse("datasets:list", args=["night"])
    client.get(url)
    for number in range(10):
        dataset = Dataset.objects.create(team=cast.team, name=f"d{number}", created_by=cast.bob)
        DatasetVersion.objects.create(dataset=dataset, number=1, train_upload=version.train_upload, created_by=cast.bob)
    with django_assert_num_queries(12):
        assert client.get(url).content.count(b"Needs mapping") == 11
