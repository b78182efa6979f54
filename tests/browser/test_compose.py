"""Combining adapters in the browser: what does not go together is greyed out, the settings follow the combination, the page is right."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser.conftest import LiveSite, Opener, accessibility_faults, scrolls_sideways
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services.compose import compose_run

pytestmark = pytest.mark.browser


@pytest.fixture
def bench(live_site: LiveSite) -> Bench:
    return make_bench()


@pytest.fixture
def runs(bench: Bench) -> dict[str, Run]:
    """Finished runs by name."""
    methods = {"tickets": "lora", "letters": "rslora", "blocks": "block_sparse", "more-blocks": "block_sparse", "hada": "loha"}
    return {name: stories.finished(bench.launch(name=name, method=method), 5) for name, method in methods.items()}


def test_adapters_are_chosen_and_combined(open_page: Opener, bench: Bench, runs: dict[str, Run]) -> None:
    page = open_page(bench.user, reverse("runs:list", args=[bench.team.slug]))
    page.get_by_role("link", name="Combine adapters").click()
    boxes = {name: page.locator(f"#id_adapters_{run.id}") for name, run in runs.items()}
    expect(boxes["hada"]).to_be_disabled()
    expect(boxes["blocks"]).to_be_enabled()
    boxes["tickets"].check()
    expect(boxes["blocks"]).to_be_disabled()
    expect(page.locator(f"#why_{runs['blocks'].id}")).to_contain_text("it is block-sparse, the first is low-rank (LoRA)")
    boxes["tickets"].uncheck()
    boxes["blocks"].check()
    expect(boxes["letters"]).to_be_disabled()
    expect(page.locator("#id_combination_svd")).to_be_disabled()
    boxes["blocks"].uncheck()
    expect(page.locator("#id_combination_svd")).to_be_enabled()
    expect(page.locator("#id_rank")).to_be_hidden()
    page.locator("#id_combination_ties_svd").check()
    expect(page.locator("#id_rank")).to_be_visible()
    expect(page.locator("#id_density")).to_be_visible()
    expect(page.locator("#id_seed")).to_be_hidden()
    boxes["tickets"].check()
    boxes["letters"].check()
    page.get_by_label("Weight letters").fill("0.5")
    page.get_by_label("Cut to rank").fill("8")
    page.get_by_role("button", name="Combine").click()
    expect(page.locator("#composition")).to_contain_text("TIES of updates")
    run = Run.objects.get(kind=Kind.COMPOSE)
    assert page.url.endswith(reverse("runs:detail", args=[run.id]))
    assert {part["name"]: part["weight"] for part in run.spec["adapters"]} == {"tickets": 1.0, "letters": 0.5}
    assert (run.spec["combination"], run.spec["rank"]) == ("ties_svd", 8)


def test_the_form_needs_no_script(open_page: Opener, bench: Bench, runs: dict[str, Run]) -> None:
    page = open_page(bench.user, reverse("runs:combine", args=[bench.team.slug]), java_script_enabled=False)
    for name in ("blocks", "more-blocks"):
        page.locator(f"#id_adapters_{runs[name].id}").check()
    page.get_by_role("button", name="Combine").click()
    run = Run.objects.get(kind=Kind.COMPOSE)
    assert (run.method, page.url.endswith(reverse("runs:detail", args=[run.id]))) == ("block_sparse", True)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_its_pages_are_accessible_and_fit(open_page: Opener, bench: Bench, runs: dict[str, Run], width: int, scheme: Any) -> None:
    parts = [(runs["tickets"], 0.7), (runs["letters"], 0.3)]
    made = stories.composed(
        compose_run(team=bench.team, user=bench.user, name="both", parts=parts, combination="svd", rank=16), rank=16, lost=0.0312
    )
    form = reverse("runs:combine", args=[bench.team.slug], query={"with": str(runs["tickets"].id)})
    page = open_page(bench.user, form, viewport={"width": width, "height": 900}, color_scheme=scheme)
    for path in (form, reverse("runs:detail", args=[made.id])):
        page.goto(path)
        assert accessibility_faults(page) == [], path
        assert not scrolls_sideways(page), path
