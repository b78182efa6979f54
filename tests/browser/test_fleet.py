"""In the browser: the queue put in order by keyboard, a worker drained, limits set without JavaScript, a notification when a run ends."""

from __future__ import annotations

import pytest
from django.db.models.functions import Now
from django.urls import reverse
from playwright.sync_api import Page, expect

from tests.browser.conftest import LiveSite, Opener, accessibility_faults, scrolls_sideways
from tests.webapp.notices.test_telling import fail
from tests.webapp.runs.rows import Bench, make_bench
from webapp.notices.models import RunEnding, Webhook
from webapp.quotas.models import Quota
from webapp.runs.models import Run, Worker
from webapp.runs.order import places

# A Chromium without windows asks nobody: the permission is as if somebody had given it.
RECORD = """
const Real = window.Notification;
window.shown = [];
window.Notification = class extends Real {
  static permission = "granted";
  static requestPermission = async () => "granted";
  constructor(title, options) {
    super(title, options);
    window.shown.push([title, options.body, options.tag]);
  }
};
"""


@pytest.fixture
def bench(live_site: LiveSite) -> Bench:
    """Alice, who administers the site."""
    bench = make_bench()
    bench.user.is_superuser = True
    bench.user.save()
    return bench


def line(page: Page) -> list[str]:
    return [text.splitlines()[0] for text in page.locator("table.queue tbody th").all_inner_texts()]


def test_the_queue_is_put_in_order_by_keyboard_and_a_worker_drained(open_page: Opener, bench: Bench) -> None:
    for name in ("first", "second", "third"):
        bench.launch(name=name)
    worker = Worker.objects.create(name="train0@host", queue="train", seen_at=Now())
    page = open_page(bench.user, reverse("runs:workers", args=[bench.team.slug]))
    assert accessibility_faults(page) == []
    page.get_by_role("button", name="Move the run at place 3 up").focus()
    button = page.evaluate("document.activeElement.id")
    for expected in (["first", "third", "second"], ["third", "first", "second"], ["third", "first", "second"]):
        page.keyboard.press("Enter")
        expect(page.locator("table.queue tbody th")).to_contain_text(expected)
        # The focus goes with the run, also at the end of its line.
        assert page.evaluate("document.activeElement.id") == button
    page.get_by_label("Priority of the run at place 3").select_option("High")
    expect(page.locator("table.queue tbody th")).to_contain_text(["second", "third", "first"])
    assert [Run.objects.get(pk=run_id).name for run_id in places("train")] == line(page)
    page.get_by_role("button", name="Drain train0@host").click()
    expect(page.get_by_role("button", name="Resume train0@host")).to_be_visible()
    worker.refresh_from_db()
    assert worker.draining
    # What another person does is seen without a click.
    Run.objects.filter(name="third").delete()
    expect(page.locator("table.queue tbody th")).to_contain_text(["second", "first"], timeout=8000)


def test_everything_goes_without_javascript(open_page: Opener, bench: Bench) -> None:
    for name in ("first", "second"):
        bench.launch(name=name)
    page = open_page(bench.user, reverse("runs:workers", args=[bench.team.slug]), java_script_enabled=False)
    page.get_by_role("button", name="Move the run at place 2 to the top").click()
    assert line(page) == ["second", "first"]
    page.get_by_label("Priority of the run at place 1").select_option("Low")
    page.get_by_role("row", name="second").get_by_role("button", name="Set").click()
    assert line(page) == ["first", "second"]
    page.goto(reverse("quotas:edit", args=[bench.team.slug]))
    page.get_by_label("Running runs").fill("2")
    page.get_by_role("button", name="Set the limits").click()
    assert Quota.objects.get().running_runs == 2
    page.goto(reverse("notices:notifications", args=[bench.team.slug]))
    page.get_by_label("Address").fill("https://example.com/hook")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#webhook-secret")).to_contain_text("whsec_")
    assert Webhook.objects.get().url == "https://example.com/hook"


def test_a_notification_when_a_run_ends(open_page: Opener, bench: Bench) -> None:
    run = bench.launch(name="support-11")
    page = open_page(bench.user, reverse("notices:notifications", args=[bench.team.slug]), permissions=["notifications"])
    assert accessibility_faults(page) == []
    page.clock.install()
    page.add_init_script(RECORD)
    page.reload()
    status = page.locator("notify-switch [data-status]")
    expect(status).to_have_text("Off: this browser shows none.")
    with page.expect_response("**/feed/**"):
        page.get_by_role("button", name="Show notifications").click()
    expect(status).to_have_text("On: this browser shows notifications.")
    expect(page.get_by_role("button", name="Show none")).to_be_focused()
    # On every page of the site, from now on.
    with page.expect_response("**/feed/**"):
        page.goto(reverse("datasets:list", args=[bench.team.slug]))
    fail(run)
    with page.expect_response("**/feed/**"):
        page.clock.fast_forward(11_000)
    page.wait_for_function("window.shown.length > 0")
    ending = RunEnding.objects.get()
    assert page.evaluate("window.shown") == [
        ["support-11 has failed", "The GPU has too little memory. Take a smaller micro-batch.", str(ending.id)]
    ]
    page.goto(reverse("notices:notifications", args=[bench.team.slug]))
    page.get_by_role("button", name="Show none").click()
    expect(status).to_have_text("Off: this browser shows none.")
    assert page.evaluate("localStorage.getItem('graft-notify')") is None


@pytest.mark.parametrize("route", ["quotas:usage", "quotas:site", "notices:notifications"])
def test_a_phone_shows_them_whole(open_page: Opener, bench: Bench, route: str) -> None:
    Quota.objects.create(team=bench.team, storage_bytes=10**9, running_runs=0)
    arguments = [] if route == "quotas:site" else [bench.team.slug]
    page = open_page(bench.user, reverse(route, args=arguments), viewport={"width": 390, "height": 800}, color_scheme="dark")
    assert accessibility_faults(page) == []
    assert not scrolls_sideways(page)
