"""Methods in the browser: found, greyed out with a reason, launched from the form, trained by a real worker, seen from inside."""

from __future__ import annotations

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from jobs.models.inspect import inspect_model
from tests.browser.conftest import LiveSite, Opener, accessibility_faults
from tests.flow.site import wait_for
from tests.tiny import make_tiny_model
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.models import Run, Worker
from webapp.runs.states import State

pytestmark = pytest.mark.browser
ROWS = [{"prompt": f"Say {number}: ", "completion": "even" if number % 2 == 0 else "odd"} for number in range(32)]


@pytest.fixture
def bench(live_site: LiveSite) -> Bench:
    """Alice's team with a tiny model, which has no biases, and a GPU-less worker that has been seen."""
    ready = make_bench(rows=ROWS)
    make_tiny_model(ready.base_model.folder)
    ready.base_model.facts = inspect_model(ready.base_model.folder).to_json()
    ready.base_model.save()
    Worker.objects.create(name="seen@site", queue="train", device=stories.DEVICE, seen_at=ready.user.date_joined)
    return ready


def launch(page: Page, bench: Bench, method: str, name: str) -> Run:
    """Launches a short run of a method by the form."""
    page.goto(reverse("runs:whole", args=[bench.team.slug]))
    page.locator("#method-filter").fill(name)
    page.get_by_role("radio", name=name).first.check()
    page.get_by_label("Epochs", exact=True).fill("2")
    page.get_by_label("Micro-batch", exact=True).fill("8")
    page.get_by_role("button", name="Launch").click()
    expect(page.locator("#run-header")).to_be_visible()
    run = Run.objects.get(method=method)
    assert page.url.endswith(reverse("runs:detail", args=[run.id]))
    return run


def succeeded(run: Run) -> bool:
    run.refresh_from_db()
    assert run.state == State.SUCCEEDED or not run.is_terminal, run.message
    return run.state == State.SUCCEEDED


def test_three_methods_are_launched_and_one_shows_its_blocks(open_page: Opener, bench: Bench, live_site: LiveSite) -> None:
    live_site.start_dispatcher()
    live_site.start_worker("train0")
    page = open_page(bench.user, reverse("runs:whole", args=[bench.team.slug]))
    runs = [launch(page, bench, *each) for each in (("lora_plus", "LoRA+"), ("ia3", "(IA)³"), ("block_sparse", "Block-sparse"))]
    for run in runs:
        wait_for(lambda run=run: succeeded(run), 200)  # type: ignore[misc]
    page.goto(reverse("runs:detail", args=[runs[-1].id]))
    expect(page.locator("#blocks")).to_be_visible()
    cells = page.locator("#blocks td button")
    expect(cells).to_have_count(14)  # seven linear layers in each of two
    page.locator("#block-step").focus()
    page.keyboard.press("Home")
    expect(page.locator("#block-step-value")).not_to_have_text(str(runs[-1].total_steps))
    cells.first.click()
    expect(page.locator("block-scores canvas")).to_be_visible()
    assert accessibility_faults(page) == []
    page.goto(reverse("runs:detail", args=[runs[0].id]))
    expect(page.locator("#blocks")).to_be_hidden()


def test_a_method_that_does_not_fit_is_greyed_out_with_its_reason(open_page: Opener, bench: Bench) -> None:
    page = open_page(bench.user, reverse("runs:whole", args=[bench.team.slug]))
    bitfit = page.locator("[data-choice]", has=page.locator("#id_method_bitfit"))
    page.get_by_text("A few of the model's own weights").click()
    expect(bitfit).to_contain_text("Does not fit: it trains the model's biases")
    expect(page.locator("#id_method_bitfit")).to_be_disabled()
    expect(page.locator("#id_method_lora")).to_be_enabled()
    page.locator("#method-filter").fill("biases")
    expect(bitfit).to_be_visible()
    expect(page.locator("#id_method_qlora")).to_be_hidden()


def test_recomputing_is_greyed_out_where_the_method_does_not_bear_it(open_page: Opener, bench: Bench) -> None:
    page = open_page(bench.user, reverse("runs:whole", args=[bench.team.slug]))
    page.get_by_text("More settings").click()
    recompute = page.get_by_label("Recompute activations")
    said = page.locator("#id_training_gradient_checkpointing_helptext")
    expect(said).to_contain_text("much less memory")
    recompute.check()
    page.get_by_text("Learned prompts").click()
    page.locator("#id_method_prefix_tuning").check()
    expect(recompute).to_be_disabled()
    expect(said).to_contain_text("Not with this method")
    assert accessibility_faults(page) == []
    page.locator("#id_method_prompt_tuning").check()
    expect(recompute).to_be_enabled()
    expect(said).to_contain_text("much less memory")
    page.locator("#id_method_prefix_tuning").check()
    page.get_by_label("Micro-batch", exact=True).fill("8")
    page.get_by_role("button", name="Launch").click()
    expect(page.locator("#run-header")).to_be_visible()
    assert not Run.objects.get().spec["training"]["gradient_checkpointing"], "what is greyed out is not sent"


def test_trained_parameters_are_told_and_follow_what_is_typed(open_page: Opener, bench: Bench) -> None:
    page = open_page(bench.user, reverse("runs:whole", args=[bench.team.slug]))
    told = page.locator("#trained")
    at_first = told.inner_text()
    assert at_first.startswith("Trains ")
    page.locator("#id_settings_lora_rank").fill("8")
    expect(told).not_to_have_text(at_first)
    expect(told).to_contain_text("of the base's")
    page.locator("#id_settings_lora_rank").fill("0")
    expect(told).to_have_text("")
    page.get_by_text("Learned prompts").click()
    page.locator("#id_method_prompt_tuning").check()
    expect(told).to_contain_text("Trains 1")  # 20 tokens, 64 wide
    expect(page.locator("[data-trained=prompt_tuning]")).to_contain_text("parameters")
    assert accessibility_faults(page) == []
