"""Datasets in a real browser: an upload that breaks off and is resumed by the unmodified tus client, the mapping, the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import LiveSite, Opener
from tests.webapp.cast import Cast, make_cast
from webapp.datasets.models import DatasetVersion, Upload
from webapp.datasets.services.validate import validate

pytestmark = pytest.mark.browser
PART_BYTES = 8 * 2**20


@pytest.fixture
def people(live_site: LiveSite) -> Cast:
    return make_cast()


def rows_file(path: Path, rows: int, width: int = 40) -> Path:
    with path.open("w") as file:
        for number in range(rows):
            file.write(
                json.dumps({"frage": f"Wo ist Paket {number}? {'x' * width}", "antwort": "versand" if number % 2 else "rechnung"}) + "\n"
            )
    return path


def form_of_new_dataset(page: Page, file: Path) -> None:
    page.get_by_label("Name").fill("Tickets")
    page.get_by_label("Training file", exact=True).set_input_files(file)


def test_an_upload_that_breaks_off_goes_on_after_a_reload(open_page: Opener, people: Cast, tmp_path: Path) -> None:
    file = rows_file(tmp_path / "tickets.jsonl", 20_000, width=1000)
    size = file.stat().st_size
    assert 2 * PART_BYTES < size < 3 * PART_BYTES
    page = open_page(people.bob, reverse("datasets:new", args=["night"]))
    offsets: list[str] = []

    def first_part_alone(route: Route) -> None:
        if route.request.method == "PATCH":
            offsets.append(route.request.headers["upload-offset"])
            if len(offsets) > 1:
                return  # never answered: the connection hangs
        route.continue_()

    page.route("**/uploads/*", first_part_alone)
    form_of_new_dataset(page, file)
    expect(page.locator("file-upload progress").first).to_have_js_property("value", PART_BYTES, timeout=30_000)
    page.reload()
    page.unroute_all(behavior="ignoreErrors")
    upload = Upload.objects.get()
    assert upload.bytes_received == PART_BYTES
    page.on("request", lambda request: offsets.append(request.headers["upload-offset"]) if request.method == "PATCH" else None)
    offsets.clear()
    form_of_new_dataset(page, file)
    # Sent at once: the form waits for the upload.
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url("**/datasets/versions/*/", timeout=60_000)
    assert offsets == [str(PART_BYTES), str(2 * PART_BYTES)]
    upload = Upload.objects.get()
    assert (upload.state, upload.filename, upload.path.read_bytes()) == ("complete", "tickets.jsonl", file.read_bytes())


def test_from_a_file_to_a_report(open_page: Opener, people: Cast, tmp_path: Path) -> None:
    page = open_page(people.bob, reverse("datasets:new", args=["night"]))
    form_of_new_dataset(page, rows_file(tmp_path / "tickets.jsonl", 200))
    expect(page.get_by_text("Uploaded")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url("**/datasets/versions/*/", timeout=30_000)

    page.get_by_label("Layout").select_option("classification")
    expect(page.locator("fieldset[data-layout=classification]")).to_be_visible()
    expect(page.locator("fieldset[data-layout=text]")).to_be_hidden()
    page.get_by_label("Text", exact=True).locator("visible=true").select_option("frage")
    page.get_by_label("Label", exact=True).locator("visible=true").select_option("antwort")
    page.get_by_label("Instruction", exact=True).locator("visible=true").fill("Why do they write?")
    expect(page.locator("#preview")).to_contain_text("Why do they write?", timeout=30_000)
    expect(page.locator("#preview .learned", has_text="rechnung").first).to_be_visible()
    page.get_by_role("button", name="Validate every row").click()
    expect(page.get_by_role("heading", name="Reading every row")).to_be_visible()

    version = DatasetVersion.objects.get()
    validate(version.pk)
    expect(page.get_by_role("link", name="Use in a run")).to_be_visible(timeout=30_000)
    expect(page.get_by_role("heading", name="Files of this version")).to_be_visible()
    version.refresh_from_db()
    assert version.mapping == {
        "format": "classification",
        "columns": {"text": "frage", "label": "antwort"},
        "instruction": "Why do they write?",
    }


def test_the_way_without_scripts(open_page: Opener, people: Cast, tmp_path: Path) -> None:
    page = open_page(people.bob, reverse("datasets:new", args=["night"]), java_script_enabled=False)
    form_of_new_dataset(page, rows_file(tmp_path / "tickets.jsonl", 50))
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("Layout").select_option("classification")
    fields = page.locator("fieldset[data-layout=classification]")
    fields.get_by_label("Text").select_option("frage")
    fields.get_by_label("Label").select_option("antwort")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview .learned", has_text="rechnung").first).to_be_visible()
    page.get_by_role("button", name="Validate every row").click()
    validate(DatasetVersion.objects.get().pk)
    page.get_by_role("link", name="Is it there?").click()
    expect(page.get_by_role("link", name="Use in a run")).to_be_visible(timeout=30_000)
