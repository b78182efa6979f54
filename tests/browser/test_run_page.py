"""The page of a run in a browser: a long run's charts and their zoom, marks, the log, what a failed run offers, and what extends one."""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import parse_qs, urlparse

import pytest
from django.urls import reverse
from django.utils.timezone import now
from playwright.sync_api import expect

from benchmarks.ui import long_run
from tests.browser.conftest import LiveSite, Opener, accessibility_faults, scrolls_sideways
from tests.browser.test_pages import bench, send, wait_for_charts  # noqa: F401 - a fixture
from tests.tiny import make_tiny_model
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench
from webapp.core.formats import format_bytes
from webapp.runs.models import Run, Worker
from webapp.runs.services.expected import expected
from webapp.runs.states import State

pytestmark = pytest.mark.browser
DRAWN = "() => document.querySelectorAll('live-chart canvas').length === document.querySelectorAll('live-chart').length"


def test_a_run_of_100_000_steps_opens_whole_and_a_zoom_refines_it(open_page: Opener, bench: Bench) -> None:  # noqa: F811
    run = long_run.record(bench.launch(name="long"))
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    page.wait_for_function(DRAWN)
    expect(page.locator("live-chart")).to_have_count(7)
    assert page.locator("run-page").get_attribute("data-drawn") == "100000"
    expect(page.locator('live-chart[metric="loss"] .readout')).to_contain_text("step")
    area = page.locator('live-chart[metric="loss"] .u-over')
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    with page.expect_response(lambda answer: "start=" in answer.url) as asked:
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.51, box["y"] + 40, steps=3)
        page.mouse.up()
    shown = asked.value.json()["shown"]
    # A hundredth of the run: no bucket of it holds more than one step any more.
    assert 800 < shown < 1200
    expect(page.locator("run-page")).to_have_attribute("data-drawn", str(shown))
    expect(page.locator("#follow")).not_to_be_checked()
    address = parse_qs(urlparse(page.url).query)
    assert float(address["to"][0]) - float(address["from"][0]) == pytest.approx(shown, abs=2)
    page.reload()
    expect(page.locator("run-page")).to_have_attribute("data-drawn", str(shown))
    page.locator("#follow").check()
    expect(page.locator("run-page")).to_have_attribute("data-drawn", "100000")
    expect(page.get_by_role("button", name="reset zoom")).to_be_disabled()


def test_the_toolbar_stands_in_the_address_and_the_keys_zoom(open_page: Opener, bench: Bench) -> None:  # noqa: F811
    run = stories.finished(bench.launch(), 60)
    page = open_page(bench.user, reverse("runs:detail", args=[run.id], query={"x": "tokens", "smoothing": "0.5"}))
    wait_for_charts(page)
    assert page.locator("#x-axis").input_value() == "tokens"
    expect(page.locator('live-chart[metric="loss"] .readout')).to_contain_text("tokens")
    page.locator("#x-axis").select_option("step")
    page.get_by_role("button", name="Loss: log").click()
    expect(page).to_have_url(re.compile(r"\?smoothing=0\.5&log-scale=loss%2Cgradient_norm$"))
    page.locator('live-chart[metric="loss"] .plot').focus()
    page.keyboard.press("+")
    expect(page.locator("#follow")).not_to_be_checked()
    page.keyboard.press("0")
    expect(page.locator("#follow")).to_be_checked()
    with page.expect_download() as download:
        page.locator('live-chart[metric="loss"] summary').click()
        page.locator('live-chart[metric="loss"] details a').click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("step,epoch,tokens,elapsed_seconds,loss")
    assert len(lines) == 61


def test_the_log_is_searched_and_a_failed_run_offers_remedies(open_page: Opener, bench: Bench) -> None:  # noqa: F811
    run = stories.failed(bench.launch(training={"learning_rate": 0.03}))
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    wait_for_charts(page)
    page.get_by_label("Search in the log").fill("CHECKPOINT of step 100")
    expect(page.locator("#log li")).to_have_count(1)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("not finite for 3 steps")
    expect(alert).to_contain_text("Adapter on 210 linear layers")
    remedy = alert.get_by_role("link", name="Learning rate 0.01 instead of 0.03")
    assert parse_qs(urlparse(remedy.get_attribute("href") or "").query) == {"clone": [str(run.id)], "training_learning_rate": ["0.01"]}
    assert not accessibility_faults(page)
    page.set_viewport_size({"width": 390, "height": 900})
    assert not scrolls_sideways(page)


def test_answers_come_in_while_it_learns_and_memory_has_its_lines(open_page: Opener, bench: Bench, live_site: LiveSite) -> None:  # noqa: F811
    make_tiny_model(bench.base_model.folder)
    bench.version.report = {"characters": {"min": 40, "median": 400, "mean": 400, "p95": 1600, "max": 4000, "total": 4000}}
    bench.version.save()
    Worker.objects.update(device={**stories.DEVICE, "memory_bytes": 2_000_000_000})
    run = bench.launch()
    story = stories.Story(run).begin().steps(1, 60).measure("base", 3.0, 0.1).ask(50, "refund")
    plan = next(event.data for event in story.events if event.kind == "plan")
    plan["device"] = {**stories.DEVICE, "memory_bytes": 2_000_000_000}
    story.tell(State.RUNNING)
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    wait_for_charts(page)
    readout = page.locator('live-chart[metric="memory"] .readout')
    known = expected(run)
    assert known is not None
    expect(readout).to_contain_text(f"estimate {format_bytes(known.training_bytes)}")
    expect(readout).to_contain_text("limit 2.00\u202fGB")
    answers = page.get_by_role("group", name="Answers to prompt 1 over time").locator(".answer")
    expect(answers).to_have_count(2)
    expect(page.locator("[data-live-state]")).to_have_text("live")
    told = len(story.events)
    story.steps(61, 100).ask(100, "billing")
    send(live_site, run, story.events[told:])
    expect(answers).to_have_count(3)
    assert [text.split("\n")[0] for text in answers.all_inner_texts()] == ["Base model", "step 50", "step 100"]
    expect(answers.last).to_contain_text("right")
    assert not accessibility_faults(page)


def test_a_finished_run_is_extended_without_a_script_too(open_page: Opener, bench: Bench) -> None:  # noqa: F811
    run = stories.finished(bench.launch(training={"epochs": 3}), 30)
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]), java_script_enabled=False)
    page.get_by_role("link", name="Extend").click()
    page.get_by_label("More epochs").fill("0")
    page.get_by_role("button", name="Extend the run").click()
    page.get_by_label("More epochs").fill("2")
    page.get_by_role("button", name="Only calculate").click()
    expect(page.locator("dl.facts")).to_contain_text("3 → 5")
    expect(page.locator("dl.facts")).to_contain_text("30 → 50")
    page.get_by_role("button", name="Extend the run").click()
    expect(page.locator("#run-header .tag").first).to_have_text("Queued")
    expect(page.locator("#history")).to_contain_text("extended by 2 epochs: from 3 to 5")


def test_a_silent_worker_is_said_and_heard_again(open_page: Opener, bench: Bench, live_site: LiveSite) -> None:  # noqa: F811
    run = bench.launch()
    stories.Story(run).begin().steps(1, 5).tell(State.RUNNING)
    Run.objects.filter(pk=run.pk).update(changed_at=now() - timedelta(seconds=40))
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    expect(page.locator("[data-live-state]")).to_have_text("lost contact with the worker", timeout=9000)
    Run.objects.filter(pk=run.pk).update(changed_at=now())
    expect(page.locator("[data-live-state]")).to_have_text("live", timeout=9000)
