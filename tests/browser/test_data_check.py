"""The data check in a real browser: rows change without a new page, a maximum is tried out, and all of it without scripts too."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser.conftest import LiveSite, Opener
from tests.browser.pages import World, make_world

pytestmark = pytest.mark.browser


@pytest.fixture
def world(live_site: LiveSite) -> World:
    return make_world()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_rows_and_lengths(open_page: Opener, world: World, scripts: bool) -> None:
    version = world.versions["ready"]
    options: dict[str, Any] = {"java_script_enabled": scripts}
    page = open_page(world.bench.user, reverse("checks:rows", args=[version.pk]), **options)
    expect(page.locator(".seen .taught").last).to_contain_text("<|im_end|>")
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_role("heading", name="Row 2 of 190 of train")).to_be_visible(timeout=15_000)
    page.get_by_label("View").select_option("tokens")
    if not scripts:
        page.get_by_role("button", name="Show").click()
    expect(page.locator(".tokens li").first).to_contain_text("0 · 0", timeout=15_000)
    page.get_by_role("link", name="Lengths").click()
    page.get_by_label("Maximum, tokens").fill("100")
    if not scripts:
        page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("cut at 100")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("At this maximum nothing would be learned")).to_be_visible()


def test_problems_are_filtered_in_place(open_page: Opener, world: World) -> None:
    page = open_page(world.bench.user, reverse("datasets:problems", args=[world.versions["problems"].pk]))
    rows = page.locator("#found tbody tr")
    expect(rows).to_have_count(2)
    page.get_by_label("Kind", exact=True).select_option("json_invalid")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("4:2")
    assert "code=json_invalid" in page.url
