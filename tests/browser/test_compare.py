"""Comparing runs and experiments in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from tests.browser.conftest import Opener, accessibility_faults, scrolls_sideways
from tests.webapp.runs import stories
from tests.webapp.runs.compare.test_page import story, url
from tests.webapp.runs.experiments.test_pages import launch
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.models import Experiment, Record, Run
from webapp.runs.states import State


@pytest.fixture
def bench(live_site: Any) -> Bench:
    return make_bench()


def copies(run: Run, count: int) -> list[Run]:
    """The same run so many times, with its records."""
    records = list(run.records.values("attempt", "seq", "kind", "step", "at", "data"))
    names = (
        "team",
        "created_by",
        "dataset_version",
        "base_model",
        "method",
        "spec",
        "queued_at",
        "lease_expires_at",
        "summary",
        "state",
        "attempt",
    )
    values = {name: getattr(run, name) for name in names}
    runs = [Run.objects.create(**values, name=f"copy {number}") for number in range(2, count + 2)]
    Record.objects.bulk_create(Record(run=each, **record) for each in runs for record in records)
    return runs


def test_thirty_runs_side_by_side(open_page: Opener, bench: Bench) -> None:
    first = story(bench.launch(name="first"), steps=12)
    last = story(bench.launch(name="last", method="full"), steps=20, memory=3_000_000_000)
    runs = [first, *copies(first, 28), last]
    page = open_page(bench.user, url(bench, *runs, base=str(first.pk)), viewport={"width": 1280, "height": 700})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/series/" in request.url else None)
    expect(page.locator("#figures tbody tr")).to_have_count(30)
    assert page.locator("live-chart canvas").count() == 0, "no chart is drawn before it is scrolled to"
    page.locator("live-chart[metric=loss]").scroll_into_view_if_needed()
    # Thirty answers of the server come before it.
    expect(page.locator("live-chart[metric=loss] canvas")).to_be_visible(timeout=30_000)
    assert page.locator("live-chart[metric=memory] canvas").count() == 0
    assert not any("keys=memory" in each for each in asked), "what is not looked at is not fetched"
    readout = page.locator("live-chart[metric=loss] .readout span")
    expect(readout).to_have_count(31)
    page.locator("live-chart[metric=memory]").scroll_into_view_if_needed()
    expect(page.locator("live-chart[metric=memory] canvas")).to_be_visible(timeout=30_000)
    expect(page.locator("live-chart[metric=memory] .readout")).to_contain_text("30 last 3.00")
    assert len(asked) == len(set(asked)), "nothing is fetched twice"
    assert sum("keys=memory" in each for each in asked) == 30
    assert not scrolls_sideways(page)


def test_runs_of_other_lengths_share_an_axis(open_page: Opener, bench: Bench) -> None:
    short, long = story(bench.launch(name="short"), steps=10), story(bench.launch(name="long"), steps=40)
    page = open_page(bench.user, url(bench, short, long), viewport={"width": 390, "height": 844}, color_scheme="dark")
    chart = page.locator("live-chart[metric=loss]")
    chart.scroll_into_view_if_needed()
    expect(chart.locator("canvas")).to_be_visible()
    chart.locator("summary").click()
    rows = chart.locator("tbody tr")
    expect(rows).to_have_count(40)
    cells = rows.nth(39).locator("td")
    expect(cells.nth(0)).to_have_text("40")
    expect(cells.nth(1)).to_have_text("")
    expect(cells.nth(2)).not_to_have_text("")
    page.get_by_label("x axis").select_option("epoch")
    expect(chart.locator("tbody tr").last.locator("td").first).to_have_text("3.00")
    expect(chart.locator("thead th").first).to_have_text("epoch")
    assert not scrolls_sideways(page)
    assert not accessibility_faults(page)


def test_runs_are_added_taken_away_and_compared_without_scripts(open_page: Opener, bench: Bench) -> None:
    one, two = story(bench.launch(name="one")), story(bench.launch(name="two"), accuracy=0.8)
    page = open_page(bench.user, url(bench, one), java_script_enabled=False)
    page.get_by_label("Run to add").select_option(str(two.pk))
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#figures tbody tr")).to_have_count(2)
    page.get_by_label("Differences to").select_option(str(one.pk))
    page.locator("#baseline-form button").click()
    expect(page.locator("#figures")).to_contain_text("points")
    page.get_by_role("link", name="Show all").click()
    expect(page.get_by_role("link", name="Differences alone")).to_be_visible()
    expect(page.locator("#figures")).to_contain_text("points")
    page.get_by_role("link", name="Take one away").click()
    expect(page.locator("#figures tbody tr")).to_have_count(1)


def grid(page: Page) -> None:
    """Fills in a grid of full fine-tuning and LoRA over two seeds."""
    page.get_by_label("Name", exact=True).fill("two methods")
    page.locator("#id_methods_full").check()
    page.locator("#id_methods_lora").check()
    page.get_by_label("Seeds").fill("0-1")


def test_an_experiment_from_form_to_table(open_page: Opener, bench: Bench) -> None:
    page = open_page(bench.user, reverse("experiments:new", args=[bench.team.slug]), viewport={"width": 1280, "height": 900})
    assert not accessibility_faults(page)
    expect(page.get_by_label("Runs, one a line")).to_be_hidden()
    grid(page)
    page.locator(".bar button[name=preview]").click()
    expect(page.locator("#preview h2")).to_have_text("4 runs will be launched")
    expect(page.locator("#preview h2")).to_be_focused()
    assert not accessibility_faults(page)
    page.get_by_role("button", name="Launch 4 runs").click()
    expect(page.get_by_role("heading", name="two methods")).to_be_visible()
    expect(page.locator("#live .tag")).to_have_text(["Queued"] * 4)
    experiment = Experiment.objects.get()
    for run in experiment.runs.all():
        memory, accuracy = (4_000_000_000, 0.5) if run.method == "full" else (1_000_000_000, 0.75)
        story(run, steps=10, accuracy=accuracy, memory=memory)
    expect(page.locator("#live .tag")).to_have_text(["Succeeded"] * 4, timeout=15_000)
    expect(page.locator("svg.scatter circle")).to_have_count(2)
    expect(page.locator("#live")).to_contain_text("−75\u202f%")
    assert not accessibility_faults(page)
    assert not scrolls_sideways(page)
    page.get_by_role("link", name="Compare all").click()
    expect(page.locator("#figures tbody tr")).to_have_count(4)


def test_an_experiment_without_scripts_on_a_phone(open_page: Opener, bench: Bench) -> None:
    page = open_page(
        bench.user, reverse("experiments:new", args=[bench.team.slug]), java_script_enabled=False, viewport={"width": 390, "height": 844}
    )
    page.get_by_label("List: a line for each").check()
    page.get_by_label("Runs, one a line").fill("lora rank=8\nlora rank=16")
    page.get_by_role("button", name="Launch all").click()
    expect(page.locator("#live .tag")).to_have_text(["Queued"] * 2)
    page.get_by_role("button", name="Stop all 2").click()
    expect(page.locator("#live .tag")).to_have_text(["Cancelled"] * 2)
    page.get_by_role("button", name="Start 2 stopped again").click()
    expect(page.locator("#live .tag")).to_have_text(["Queued"] * 2)


def test_the_pages_on_a_phone_in_the_dark(open_page: Opener, bench: Bench) -> None:
    experiment = launch(bench, axes={"lines": "full\nlora seed=0-2\nqlora"})
    for run in experiment.runs.exclude(method="qlora"):
        story(run, steps=10, accuracy=0.75)
    stories.Story(experiment.runs.get(method="qlora")).begin().steps(1, 5).tell(State.PAUSED)
    page = open_page(
        bench.user, reverse("experiments:detail", args=[experiment.pk]), viewport={"width": 390, "height": 844}, color_scheme="dark"
    )
    for path in (None, reverse("experiments:list", args=[bench.team.slug]), reverse("experiments:add", args=[experiment.pk])):
        if path:
            page.goto(path)
        assert not scrolls_sideways(page), path
        assert not accessibility_faults(page), path
