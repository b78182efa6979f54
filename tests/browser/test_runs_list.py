"""The list of runs in a real browser: it follows its runs and keeps what the reader has ticked, opened and typed; keys; without scripts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils.timezone import now
from playwright.sync_api import Page, expect

from tests.browser.conftest import LiveSite, Opener, accessibility_faults, scrolls_sideways
from tests.webapp.runs import stories
from tests.webapp.runs.lists.test_filters import add
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.models import Run, RunTag, SavedView, Worker


@pytest.fixture
def bench(live_site: LiveSite) -> Bench:
    return make_bench()


def url_of(bench: Bench, query: str = "") -> str:
    return reverse("runs:list", args=[bench.team.slug]) + query


def rows(page: Page) -> list[str]:
    return page.locator("#bulk tbody th.name > a").all_inner_texts()


def some_runs(bench: Bench) -> list[Run]:
    """Five that have ended, the first the newest, of two methods."""
    return [
        add(bench, f"run-{number}", method="qlora" if number % 2 else "lora", eval_loss=1.0 + number, accuracy=0.5, train_loss=1.0,
            peak_memory_bytes=10**9, duration=timedelta(minutes=9), summary={"spark": [3, 2, 1]},
            created_at=now() - timedelta(hours=number))
        for number in range(5)
    ]  # fmt: skip


def test_a_refresh_keeps_ticks_focus_open_groups_and_scroll(open_page: Opener, bench: Bench) -> None:
    waiting = bench.launch(name="waits")
    some_runs(bench)
    page = open_page(bench.user, url_of(bench, "?group=method"), viewport={"width": 1280, "height": 420})
    page.get_by_role("link", name="QLoRA").click()
    expect(page.get_by_role("link", name="QLoRA")).to_have_attribute("aria-expanded", "false")
    assert "closed=qlora" in page.url
    page.get_by_role("checkbox", name="Tick run-2").check()
    page.get_by_label("Tags", exact=True).fill("half-typed")
    page.evaluate("scrollTo(0, 200)")
    expect(page.locator("[data-count]")).to_have_text("1 run ticked")
    stories.finished(waiting, 20)
    expect(page.locator(f"#run-{waiting.id} .tag")).to_have_text("Succeeded", timeout=8000)
    expect(page.get_by_role("checkbox", name="Tick run-2")).to_be_checked()
    expect(page.get_by_label("Tags", exact=True)).to_be_focused()
    expect(page.get_by_label("Tags", exact=True)).to_have_value("half-typed")
    expect(page.get_by_role("link", name="QLoRA")).to_have_attribute("aria-expanded", "false")
    assert page.evaluate("scrollY") == 200
    expect(page.locator("[data-count]")).to_have_text("1 run ticked")
    expect(page.locator("#fleet")).to_have_count(1)


def test_search_columns_and_order_go_together_in_the_url(open_page: Opener, bench: Bench) -> None:
    some_runs(bench)
    page = open_page(bench.user, url_of(bench))
    page.get_by_role("link", name="Eval loss").click()
    expect(page.locator("th[aria-sort]")).to_have_attribute("aria-sort", "ascending")
    page.get_by_label("Search").fill("method:qlora eval<")
    expect(page.locator("#search-problems")).to_contain_text("A value is missing here.")
    page.get_by_label("Search").fill("method:qlora eval>=2")
    expect(page.locator("#search-problems .alert")).to_have_count(0)
    expect(page.locator("#bulk tbody tr")).to_have_count(2)
    assert rows(page) == ["run-1", "run-3"]
    page.get_by_text("Columns", exact=True).click()
    page.get_by_role("checkbox", name="Step", exact=True).check()
    expect(page.get_by_role("columnheader", name="Step")).to_be_visible()
    page.get_by_role("link", name="Eval loss").click()
    expect(page.locator("th[aria-sort]")).to_have_attribute("aria-sort", "descending")
    page.reload()
    assert rows(page) == ["run-3", "run-1"]
    expect(page.get_by_role("columnheader", name="Step")).to_be_visible()
    expect(page.get_by_label("Search")).to_have_value("method:qlora eval>=2")


def test_keys_move_tick_search_and_open_and_can_be_switched_off(open_page: Opener, bench: Bench) -> None:
    runs = some_runs(bench)
    page = open_page(bench.user, url_of(bench))
    for key in ("j", "j", "k", "j", "ArrowDown"):
        page.keyboard.press(key)
    expect(page.get_by_role("link", name="run-2")).to_be_focused()
    page.keyboard.press("x")
    expect(page.get_by_role("checkbox", name="Tick run-2")).to_be_checked()
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("jx")
    expect(page.get_by_label("Search")).to_have_value("jx")
    page.get_by_label("Search").fill("")
    expect(page.locator("#bulk tbody tr")).to_have_count(5)
    shortcuts = page.get_by_role("button", name="Shortcuts")
    shortcuts.click()
    page.keyboard.press("j")
    expect(shortcuts).to_be_focused()
    page.reload()
    expect(shortcuts).to_have_attribute("aria-pressed", "false")
    page.get_by_role("checkbox", name="Tick run-3").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{page.url.split('/t/')[0]}{reverse('runs:detail', args=[runs[3].id])}")


def test_ticked_runs_are_tagged_archived_and_brought_back(open_page: Opener, bench: Bench) -> None:
    some_runs(bench)
    page = open_page(bench.user, url_of(bench))
    bar = page.get_by_role("group", name="The ticked runs")
    expect(bar).to_be_hidden()
    page.get_by_role("checkbox", name="Tick all runs").check()
    expect(bar.locator("[data-count]")).to_have_text("5 runs ticked")
    expect(bar.get_by_role("button", name="Clone")).to_be_disabled()
    page.get_by_role("checkbox", name="Tick run-0").uncheck()
    bar.get_by_label("Tags").fill("Prod")
    bar.get_by_label("Tags").press("Enter")
    expect(page.locator(".undo")).to_contain_text("4 runs are now tagged prod.")
    assert RunTag.objects.filter(name="prod").count() == 4
    page.get_by_role("checkbox", name="Tick run-1").check()
    expect(bar.get_by_role("button", name="Clone")).to_be_enabled()
    bar.get_by_role("button", name="Archive").click()
    expect(page.locator("#bulk tbody tr")).to_have_count(4)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#bulk tbody tr")).to_have_count(5)
    page.get_by_role("checkbox", name="Tick run-2").check()
    page.get_by_role("checkbox", name="Tick run-3").check()
    bar.get_by_role("button", name="Compare").click()
    assert reverse("runs:compare", args=[bench.team.slug]) in page.url
    assert page.url.count("run=") == 2


def test_a_view_is_saved_and_chosen(open_page: Opener, bench: Bench) -> None:
    some_runs(bench)
    page = open_page(bench.user, url_of(bench))
    page.get_by_label("Search").fill("method:qlora")
    expect(page.locator("#bulk tbody tr")).to_have_count(2)
    page.get_by_text("Save view", exact=True).click()
    page.get_by_label("Name of this list").fill("quantised")
    page.get_by_role("button", name="Save", exact=True).click()
    assert SavedView.objects.get().state == "q=method%3Aqlora"
    page.get_by_role("link", name="All", exact=True).click()
    expect(page.locator("#bulk tbody tr")).to_have_count(5)
    page.get_by_role("link", name="quantised").click()
    expect(page.locator("#bulk tbody tr")).to_have_count(2)
    expect(page.get_by_role("link", name="quantised")).to_have_attribute("aria-current", "true")


def test_everything_is_done_without_scripts(open_page: Opener, bench: Bench) -> None:
    some_runs(bench)
    page = open_page(bench.user, url_of(bench), java_script_enabled=False)
    page.get_by_label("Search").fill("method:qlora")
    page.get_by_label("Group by").select_option("method")
    page.get_by_role("button", name="Show").first.click()
    assert rows(page) == ["run-1", "run-3"]
    page.get_by_role("link", name="QLoRA", exact=True).click()
    assert rows(page) == []
    page.get_by_role("link", name="QLoRA", exact=True).click()
    page.get_by_role("checkbox", name="Tick run-3").check()
    page.get_by_role("button", name="Archive").click()
    assert rows(page) == ["run-1"]
    page.get_by_role("button", name="Undo").click()
    assert rows(page) == ["run-1", "run-3"]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_it_is_accessible_with_all_that_it_can_show(open_page: Opener, bench: Bench, width: int, scheme: str) -> None:
    run = some_runs(bench)[0]
    RunTag.objects.create(run=run, name="prod")
    SavedView.objects.create(team=bench.team, user=bench.user, name="prod", state="q=tag%3Aprod")
    Worker.objects.create(name="w0", queue="train", device=stories.DEVICE, seen_at=now())
    page = open_page(
        bench.user, url_of(bench, "?group=method&q=run+stats:x"), viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page.get_by_role("checkbox", name="Tick run-0").check()
    page.locator(".search-help summary").click()
    page.locator(".list-menu summary").last.click()
    assert accessibility_faults(page) == []
    assert not scrolls_sideways(page)
