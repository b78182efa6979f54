"""Models in a real browser: files that are sent in parts by the unmodified tus client become a model; the page renews itself when it is
there; a run's merged model becomes a base model, and the lineage leads from one to the other.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from tests.browser.conftest import LiveSite, Opener, accessibility_faults, scrolls_sideways
from tests.tiny import make_tiny_model
from tests.webapp.artifacts.things import make_artifact, make_base, make_run, make_version
from tests.webapp.cast import Cast, make_cast
from webapp.catalog.models import BaseModel
from webapp.catalog.services.fetch import fetch
from webapp.datasets.models import Upload

pytestmark = pytest.mark.browser


@pytest.fixture
def people(live_site: LiveSite) -> Cast:
    return make_cast()


def fits(page: Page) -> None:
    assert accessibility_faults(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert not scrolls_sideways(page)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_files_that_are_sent_become_a_model_that_a_run_can_use(open_page: Opener, people: Cast, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    page = open_page(people.bob, reverse("catalog:add", args=["night", "hub"]))
    page.get_by_role("link", name="Upload").click()
    page.get_by_label("Name").fill("Sent")
    page.get_by_label("Files of the model").set_input_files([str(path) for path in sorted(folder.iterdir())])
    expect(page.locator("file-upload")).to_have_count(len(list(folder.iterdir())))
    expect(page.get_by_text("Uploaded", exact=True)).to_have_count(len(list(folder.iterdir())))
    fits(page)
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name="Sent")).to_be_visible()
    expect(page.get_by_text("Waiting for its turn")).to_be_visible()
    assert not Upload.objects.exists()
    fetch(BaseModel.objects.get().pk)
    expect(page.get_by_role("heading", name="Target modules")).to_be_visible()
    expect(page.get_by_role("heading", name="On which worker it fits")).to_be_visible()
    expect(page.locator("pre.template")).to_contain_text("<|im_start|>system")
    fits(page)
    page.get_by_role("link", name="Use in a run").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_a_merged_model_becomes_a_base_model_and_its_lineage_leads_back(open_page: Opener, people: Cast, tmp_path: Path) -> None:
    run = make_run(people, "tickets", make_base(people), make_version(people))
    merged = make_artifact(run, "merged", make_tiny_model(tmp_path / "merged"), merge_max_difference=1.5e-6, top1_agreement=0.9975)
    page = open_page(people.bob, reverse("artifacts:list", args=["night"]))
    fits(page)
    page.get_by_label("Kind").select_option("adapter")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("No artifact matches.")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    page.get_by_role("link", name=merged.name, exact=True).click()
    expect(page.get_by_text("99.75")).to_be_visible()
    fits(page)
    page.get_by_label("Name of the base model").fill("Tickets v1")
    page.get_by_role("button", name="Use as base model").click()
    expect(page.get_by_role("heading", name="Tickets v1")).to_be_visible()
    lineage = page.locator("#lineage")
    for name in ("Tiny", "tickets", merged.name):
        expect(lineage.get_by_role("link", name=name, exact=True)).to_be_visible()
    expect(lineage.locator("[aria-current=true]")).to_contain_text("Tickets v1")
    fits(page)
    lineage.get_by_role("link", name=merged.name).click()
    expect(page.locator("#lineage").get_by_role("link", name="Tickets v1")).to_be_visible()
