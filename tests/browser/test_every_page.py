"""Every page, light and dark, wide and narrow: nothing that axe finds, nothing that scrolls sideways, nothing said on the console.

With GRAFT_SCREENSHOTS set to a folder, the pictures of all pages are left there (`make screenshots`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from django.urls import reverse
from playwright.sync_api import Browser, Page

from tests.browser.conftest import LiveSite, Opener, accessibility_faults, guarded_context, scrolls_sideways, sign_in
from tests.browser.pages import PAGES, Visit, World, make_world
from tests.webapp.runs.rows import make_bench

pytestmark = pytest.mark.browser
SIZES = {1280: {"width": 1280, "height": 900}, 390: {"width": 390, "height": 844}}
FOLDER = os.environ.get("GRAFT_SCREENSHOTS", "")
# Of a page that was looked at in full, what can differ in other colours.
BY_COLOUR = ["color-contrast", "link-in-text-block"]


@pytest.fixture
def world(live_site: LiveSite) -> World:
    return make_world()


def picture(page: Page, name: str) -> None:
    if FOLDER:
        page.screenshot(path=Path(FOLDER) / f"{name}.jpg", type="jpeg", quality=70)


@pytest.mark.timeout(1500)
def test_every_page_is_accessible_and_fits(open_page: Opener, world: World) -> None:
    faults: dict[str, list[str]] = {}
    for visit in PAGES:
        page = open_page(visit.who(world), visit.path(world), viewport=SIZES[1280], color_scheme="light")
        page.locator(visit.ready).first.wait_for()
        for width, size in SIZES.items():
            page.set_viewport_size(size)  # type: ignore[arg-type]
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                name = f"{visit.name}-{width}-{scheme}"
                faults[name] = ["scrolls sideways"] if scrolls_sideways(page) else []
                # A page's colours are the same on both widths; axe is what this test's minutes go to.
                if (width, scheme) != (390, "dark"):
                    faults[name] += accessibility_faults(page, rules=BY_COLOUR if scheme == "dark" else None)
                picture(page, name)
        page.context.close()
    assert {name: found for name, found in faults.items() if found} == {}


def test_pages_of_errors_are_accessible_too(browser: Browser, live_site: LiveSite) -> None:
    """A form without its token, a run that is not there. The browser itself writes their status to the console."""
    context = guarded_context(browser, live_site.url, [], color_scheme="dark")
    page = context.new_page()
    page.goto(reverse("account_login"))
    page.locator("main form").evaluate(
        "form => { form.querySelector('[name=csrfmiddlewaretoken]').remove(); form.noValidate = true; form.submit(); }"
    )
    page.get_by_role("heading", name="The form was too old, and nothing was changed").wait_for()
    check_error(page)
    sign_in(context, live_site, make_bench().user)
    page.goto(reverse("runs:detail", args=[uuid4()]))
    page.get_by_role("heading", name="There is nothing at this address").wait_for()
    check_error(page)
    context.close()


def check_error(page: Page) -> None:
    for size in SIZES.values():
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert accessibility_faults(page) == []
        assert not scrolls_sideways(page)


@pytest.mark.timeout(900)
def test_every_page_fits_in_the_language_of_the_longest_words(open_page: Opener, world: World) -> None:
    assert [visit.name for visit, page in visited(open_page, world, "fi-FI") if scrolls_sideways(page)] == []


@pytest.mark.timeout(600)
@pytest.mark.skipif(not FOLDER, reason="pictures alone, of which none are asked for")
def test_every_page_is_photographed_in_japanese(open_page: Opener, world: World) -> None:
    for visit, page in visited(open_page, world, "ja-JP"):
        page.set_viewport_size(SIZES[1280])  # type: ignore[arg-type]
        picture(page, f"{visit.name}-1280-light-ja")


def visited(open_page: Opener, world: World, locale: str) -> Iterator[tuple[Visit, Page]]:
    """Every page on a narrow window, in another language."""
    for visit in PAGES:
        page = open_page(visit.who(world), visit.path(world), viewport=SIZES[390], color_scheme="light", locale=locale)
        page.locator(visit.ready).first.wait_for()
        assert page.locator("html").get_attribute("lang") == locale[:2]
        yield visit, page
        page.context.close()
