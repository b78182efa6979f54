"""The pages in a real browser, on real rows: they render, draw, follow the socket, and are right for everybody."""

from __future__ import annotations

import json
import signal

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from jobs.events import Event
from tests.browser.conftest import LiveSite, Opener
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from webapp.core import formats
from webapp.runs.keys import stream_key
from webapp.runs.models import Record, Run, Worker
from webapp.runs.states import State

pytestmark = pytest.mark.browser


@pytest.fixture
def bench(live_site: LiveSite) -> Bench:
    """Alice's team with a worker."""
    ready = make_bench()
    Worker.objects.create(name="train0@site", queue="train", device=stories.DEVICE, seen_at=ready.user.date_joined)
    return ready


def drawn(page: Page) -> list[bool]:
    """For each chart whether its canvas holds anything."""
    found: list[bool] = page.evaluate(
        """() => [...document.querySelectorAll("live-chart")].map((chart) => {
          const canvas = chart.querySelector("canvas");
          return Boolean(canvas) && canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte > 0);
        })"""
    )
    return found


def wait_for_charts(page: Page) -> None:
    expect(page.locator("live-chart canvas")).to_have_count(5)


def readout(page: Page, metric: str) -> str:
    return page.locator(f'live-chart[metric="{metric}"] .readout').inner_text()


def test_a_finished_run_is_drawn(open_page: Opener, bench: Bench) -> None:
    run = stories.finished(bench.launch())
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    wait_for_charts(page)
    assert drawn(page) == [True] * 5
    assert f"step {formats.format_number(500)}" in readout(page, "loss")
    expect(page.locator("[data-live-state]")).to_have_text("ended")
    expect(page.locator("#evaluation tbody tr")).to_have_count(3)
    with page.expect_download() as download:
        page.locator("#artifacts a.btn").first.click()
    assert download.value.suggested_filename == "tickets-adapter.zip"


def test_the_charts_answer_to_keys_and_tell_their_numbers(open_page: Opener, bench: Bench) -> None:
    run = stories.finished(bench.launch(), 40)
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    wait_for_charts(page)
    chart = page.locator('live-chart[metric="loss"]')
    chart.locator(".plot").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(chart.locator("[aria-live]")).to_contain_text("step 39: raw")
    loss = Record.objects.get(run=run, kind="step", step=39).data["loss"]
    assert f"raw {loss:.4g}" in chart.locator("[aria-live]").inner_text()
    chart.locator("summary").click()
    expect(chart.locator("tbody tr")).to_have_count(40)
    chart.get_by_role("button", name="Loss: log").click()
    expect(chart.get_by_role("button", name="Loss: log")).to_have_attribute("aria-pressed", "true")
    assert all(drawn(page))


def send(site: LiveSite, run: Run, events: list[Event]) -> None:
    """Puts events on the wire and into the archive, as the supervisor does."""
    Record.objects.bulk_create(
        Record(run=run, attempt=1, seq=event.seq, kind=event.kind, step=event.data.get("step"), at=event.t, data=event.data)
        for event in events
    )
    redis = site.redis()
    for event in events:
        body = {"attempt": 1, **json.loads(event.to_line())}
        redis.xadd(stream_key(run.id), {"e": json.dumps(body)}, id=f"1-{event.seq}")


def test_points_arrive_without_reload_and_stay_after_it(open_page: Opener, bench: Bench, live_site: LiveSite) -> None:
    run = bench.launch()
    story = stories.Story(run).begin().steps(1, 20)
    story.tell(State.RUNNING)
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    wait_for_charts(page)
    expect(page.locator("[data-live-state]")).to_have_text("live")
    told = len(story.events)
    story.steps(21, 49)
    story.emit("log", level="info", message="<b>half-way</b>")
    send(live_site, run, story.events[told:])
    expect(page.locator('[data-live="progress"]')).to_have_text(f"step 49 / {story.total}")
    expect(page.locator('live-chart[metric="loss"] .readout')).to_contain_text("step 49")
    expect(page.locator("#log")).to_contain_text("<b>half-way</b>")
    before = readout(page, "loss")
    page.reload()
    wait_for_charts(page)
    expect(page.locator('live-chart[metric="loss"] .readout')).to_contain_text("step 49")
    assert readout(page, "loss") == before


def test_the_page_says_by_itself_that_contact_is_lost_and_comes_back(open_page: Opener, bench: Bench, live_site: LiveSite) -> None:
    run = bench.launch()
    story = stories.Story(run).begin().steps(1, 5)
    story.tell(State.RUNNING)
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    expect(page.locator("[data-live-state]")).to_have_text("live")
    web = live_site.processes["web"]
    web.send_signal(signal.SIGSTOP)
    try:
        expect(page.locator("[data-live-state]")).to_have_text("lost contact", timeout=20_000)
        told = len(story.events)
        story.steps(6, 9)
        send(live_site, run, story.events[told:])
    finally:
        web.send_signal(signal.SIGCONT)
    expect(page.locator("[data-live-state]")).to_have_text("live", timeout=20_000)
    expect(page.locator('[data-live="progress"]')).to_have_text(f"step 9 / {story.total}")
    expect(page.locator('live-chart[metric="loss"] .readout')).to_contain_text("step 9 ")


def test_zooming_one_chart_zooms_all_and_can_be_undone(open_page: Opener, bench: Bench) -> None:
    run = stories.finished(bench.launch(), 40)
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    wait_for_charts(page)
    reset = page.get_by_role("button", name="reset zoom")
    expect(reset).to_be_disabled()
    before = canvases(page)
    area = page.locator('live-chart[metric="loss"] .u-over')
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 40, steps=4)
    page.mouse.up()
    expect(reset).to_be_enabled()
    zoomed = canvases(page)
    assert all(one != other for one, other in zip(before, zoomed, strict=True))
    reset.click()
    expect(reset).to_be_disabled()
    assert canvases(page) == before


def canvases(page: Page) -> list[str]:
    """What is drawn, after the next frames."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    pictures: list[str] = page.evaluate("() => [...document.querySelectorAll('live-chart canvas')].map((canvas) => canvas.toDataURL())")
    return pictures


def test_the_end_of_a_run_reaches_the_open_page(open_page: Opener, bench: Bench) -> None:
    run = bench.launch()
    story = stories.Story(run, total_steps=12).begin().steps(1, 12)
    story.tell(State.RUNNING)
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]))
    expect(page.locator("[data-live-state]")).to_have_text("live")
    run.records.all().delete()
    stories.finished(run, 12)
    expect(page.locator("#run-header .tag").first).to_have_text("Succeeded")
    expect(page.locator("#artifacts article")).to_have_count(2)
    expect(page.locator("#evaluation tbody tr")).to_have_count(3)
    expect(page.locator("[data-live-state]")).to_have_text("ended")


def test_the_list_follows_its_runs(open_page: Opener, bench: Bench) -> None:
    run = bench.launch(name="tickets-lora")
    page = open_page(bench.user, reverse("runs:list", args=[bench.team.slug]))
    expect(page.locator(f"#run-{run.id} .tag")).to_have_text("Queued")
    stories.finished(run, 20)
    expect(page.locator(f"#run-{run.id} .tag")).to_have_text("Succeeded", timeout=8000)
    expect(page.locator("#runs")).not_to_have_attribute("hx-get", "")


def test_the_list_is_searched_as_one_types(open_page: Opener, bench: Bench) -> None:
    stories.finished(bench.launch(name="alpha"), 20)
    stories.finished(bench.launch(name="beta"), 20)
    page = open_page(bench.user, reverse("runs:list", args=[bench.team.slug]))
    page.get_by_label("Search").fill("alp")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    assert "q=alp" in page.url


def test_a_run_is_launched_and_paused_by_the_form(open_page: Opener, bench: Bench) -> None:
    page = open_page(bench.user, reverse("runs:whole", args=[bench.team.slug]))
    expect(page.locator('[data-method="lora"]')).to_be_visible()
    expect(page.locator('[data-method="qlora"]')).to_be_hidden()
    expect(page.locator("#effective-batch")).to_have_text("16")
    page.locator("#id_method_qlora").check()
    expect(page.locator('[data-method="qlora"]')).to_be_visible()
    page.get_by_label("Rank", exact=True).locator("visible=true").fill("4")
    page.get_by_role("button", name="Launch").click()
    run = Run.objects.get()
    expect(page).to_have_url(f"{page.url.split('/runs/')[0]}{reverse('runs:detail', args=[run.id])}")
    assert run.spec["method"]["settings"]["rank"] == 4
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#run-header .tag").first).to_have_text("Paused")


def test_pages_can_be_read_and_used_without_scripts(open_page: Opener, bench: Bench) -> None:
    run = stories.finished(bench.launch(), 20)
    page = open_page(bench.user, reverse("runs:detail", args=[run.id]), java_script_enabled=False)
    expect(page.locator("#evaluation tbody tr")).to_have_count(3)
    expect(page.locator("#artifacts article")).to_have_count(2)
    page.goto(reverse("runs:whole", args=[bench.team.slug]))
    page.get_by_role("button", name="Launch").click()
    assert Run.objects.count() == 2


def test_colours_follow_the_choice_of_the_reader(open_page: Opener, bench: Bench) -> None:
    page = open_page(bench.user, reverse("runs:list", args=[bench.team.slug]), color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    toggle = page.get_by_role("button", name="Colours")
    toggle.click()
    toggle.click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark


def test_figures_are_written_alike_by_server_and_script(open_page: Opener, bench: Bench) -> None:
    page = open_page(bench.user, reverse("runs:list", args=[bench.team.slug]))
    values = [0, 1, -1, 12, 999.4, 1234, 1234567.891, 0.1234567, 2e-4, 1.5e-5, 0.01, 0.0123, 59.96, 3599.6, 90061, 5.1e9, 999_500, None]
    script = """async ([source, values]) => {
      const formats = await import(source);
      return values.map((value) => ["number", "rate", "bytes", "duration", "percent"].map((name) => formats[name](value)));
    }"""
    by_script = page.evaluate(script, [f"{page.url.split('/t/')[0]}/static/js/formats.js", values])
    functions = (formats.format_number, formats.format_rate, formats.format_bytes, formats.format_duration, formats.format_percent)
    assert by_script == [[function(value) for function in functions] for value in values]
