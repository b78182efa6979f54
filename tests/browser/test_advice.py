"""Advice in the browser: recommended, filled in by one click; an analysis by a real worker, drawn, and taken over into the form."""

from __future__ import annotations

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from jobs.models.inspect import inspect_model
from tests.browser.conftest import LiveSite, Opener, accessibility_faults, scrolls_sideways
from tests.flow.site import wait_for
from tests.tiny import make_tiny_model
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.kinds import Kind
from webapp.runs.models import Run, Worker
from webapp.runs.states import State

pytestmark = pytest.mark.browser
ROWS = [{"prompt": f"Say {number}: ", "completion": "even" if number % 2 == 0 else "odd"} for number in range(32)]


@pytest.fixture
def bench(live_site: LiveSite) -> Bench:
    """Alice's team with a tiny model and a worker that has been seen."""
    ready = make_bench(rows=ROWS)
    make_tiny_model(ready.base_model.folder)
    ready.base_model.facts = inspect_model(ready.base_model.folder).to_json()
    ready.base_model.save()
    Worker.objects.create(name="seen@site", queue="train", device=stories.DEVICE, seen_at=ready.user.date_joined)
    return ready


def test_a_recommendation_fills_the_form(open_page: Opener, bench: Bench) -> None:
    page = open_page(bench.user, reverse("runs:whole", args=[bench.team.slug]))
    page.get_by_label("Name", exact=True).fill("kept")
    page.get_by_label("What counts most").select_option("memory")
    page.get_by_role("button", name="Recommend").click()
    cards = page.locator("#advice .advised > li")
    expect(cards).to_have_count(3)
    expect(page.get_by_label("What counts most")).to_have_value("memory")
    expect(page.get_by_label("Name", exact=True)).to_have_value("kept")
    assert accessibility_faults(page) == []
    assert not scrolls_sideways(page)
    cards.filter(has_text="QLoRA").get_by_role("button", name="Use this").click()
    expect(page.get_by_role("status").filter(has_text="The form is filled in as advised.")).to_be_visible()
    expect(page.locator("#id_method_qlora")).to_be_checked()
    expect(page.get_by_label("Micro-batch", exact=True)).to_have_value("1")
    expect(page.get_by_label("Name", exact=True)).to_have_value("kept")


def test_an_analysis_is_launched_drawn_and_taken_over(open_page: Opener, bench: Bench, live_site: LiveSite) -> None:
    live_site.start_dispatcher()
    live_site.start_worker("train0")
    page = open_page(bench.user, reverse("runs:whole", args=[bench.team.slug]))
    page.get_by_role("button", name="Look at rank and bits").click()
    expect(page.locator("#run-header")).to_be_visible()
    run = Run.objects.get()
    assert (run.kind, run.name) == (Kind.ANALYSE, "tickets-lora, rank and bits")

    def succeeded() -> bool:
        run.refresh_from_db()
        assert run.state == State.SUCCEEDED or not run.is_terminal, run.message
        return run.state == State.SUCCEEDED

    wait_for(succeeded, 90)
    expect(page.locator("rank-curves canvas")).to_have_count(2)  # they came by the socket
    expect(page.locator("#analysis")).to_contain_text("How sure is it? Not very.")
    expect(page.locator("#artifacts")).to_contain_text("tickets-lora-rank-and-bits-analysis.zip")
    assert accessibility_faults(page) == []
    assert not scrolls_sideways(page)
    found = run.records.get(kind="method").data
    rank = found["spectrum"]["suggested_rank"]
    page.get_by_role("link", name=f"Use rank {rank} in a new run").click()
    expect(page.locator("#id_settings_lora_rank")).to_have_value(str(rank))
    page.goto(reverse("runs:detail", args=[run.id]))
    page.get_by_role("link", name="Use 8 bits").click()
    expect(page.locator("#id_method_lora_8bit")).to_be_checked()
