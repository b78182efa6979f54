"""Classification in the browser: a CSV file is mapped, an encoder trained by a real worker, and its accuracy stands on the run's page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from jobs.models.inspect import inspect_model
from tests.browser.conftest import LiveSite, Opener, accessibility_faults, scrolls_sideways
from tests.browser.test_methods import succeeded
from tests.flow.site import wait_for
from tests.tiny import make_tiny_model
from tests.tiny_architectures import make_tiny_architecture
from tests.webapp.runs.rows import Bench, make_bench
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.validate import validate
from webapp.runs.models import Run

pytestmark = pytest.mark.browser
THINGS = ("red apple", "blue sky", "green leaf", "red sun", "blue sea", "green grass")


@pytest.fixture
def bench(live_site: LiveSite) -> Bench:
    """Alice's team with a tiny BERT, a tiny Llama beside it, and a dataset of prompts."""
    ready = make_bench()
    llama = BaseModel.objects.create(name="Llama", source="sample", state=BaseModel.State.READY)
    make_tiny_architecture(ready.base_model.folder, "bert")
    make_tiny_model(llama.folder)
    for model in (ready.base_model, llama):
        model.facts = inspect_model(model.folder).to_json()
        model.save()
    ready.version.mapping = {"format": "prompt_completion", "columns": {"prompt": "prompt", "completion": "completion"}, "instruction": ""}
    ready.version.save()
    return ready


def make_dataset(page: Page, bench: Bench, folder: Path) -> DatasetVersion:
    """From a CSV file to a version whose rows are to be classified."""
    file = folder / "things.csv"
    file.write_text("text,label\n" + "".join(f"a {THINGS[n % 6]} {n},{THINGS[n % 6].split()[0]}\n" for n in range(90)))
    page.goto(reverse("datasets:new", args=[bench.team.slug]))
    page.get_by_label("Name").fill("Things")
    page.get_by_label("Training file", exact=True).set_input_files(file)
    expect(page.get_by_text("Uploaded")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url("**/datasets/versions/*/", timeout=30_000)
    expect(page.get_by_label("Layout").locator("option:checked")).to_have_text("Text with label")
    page.get_by_label("Layout").select_option("sequence_classification")
    expect(page.locator("fieldset[data-layout=sequence_classification]")).to_be_visible()
    expect(page.get_by_label("Instruction", exact=True).locator("visible=true")).to_have_count(0)
    expect(page.locator("#preview .turn.answer .learned").first).to_have_text("learned: red", timeout=30_000)
    page.get_by_label("Test rows, %").fill("20")
    assert accessibility_faults(page) == []
    page.get_by_role("button", name="Validate every row").click()
    expect(page.get_by_role("heading", name="Reading every row")).to_be_visible()
    version = DatasetVersion.objects.latest("created_at")
    validate(version.pk)
    expect(page.get_by_role("link", name="Use in a run")).to_be_visible(timeout=30_000)
    return version


def test_an_encoder_learns_to_classify_a_table(open_page: Opener, bench: Bench, live_site: LiveSite, tmp_path: Path) -> None:
    page = open_page(bench.user, reverse("datasets:list", args=[bench.team.slug]))
    version = make_dataset(page, bench, tmp_path)
    page.get_by_role("link", name="Use in a run").click()
    page.goto(f"{reverse('runs:whole', args=[bench.team.slug])}?dataset={version.pk}")
    task = page.locator("#tasks")
    expect(task.get_by_role("radio", name=re.compile("^Classification"))).to_be_checked()
    writing = task.locator("[data-choice]", has=page.locator("#id_task_causal_lm"))
    expect(writing).to_contain_text("Does not fit: Tiny can be trained for: classification")
    expect(page.locator("#id_task_causal_lm")).to_be_disabled()
    expect(page.locator("#id_task_regression")).to_be_disabled()
    page.get_by_label("Base model", exact=True).select_option(label="Llama")
    expect(writing).to_contain_text("Does not fit: it needs rows of chats")
    page.get_by_label("Dataset", exact=True).select_option(str(bench.version.pk))
    expect(page.locator("#id_task_causal_lm")).to_be_checked()
    page.get_by_label("Dataset", exact=True).select_option(str(version.pk))
    page.get_by_label("Base model", exact=True).select_option(label="Tiny")
    expect(page.locator("#id_task_sequence_classification")).to_be_checked()
    assert accessibility_faults(page) == []
    assert not scrolls_sideways(page)
    for label, value in (("Epochs", "12"), ("Learning rate", "3e-3"), ("Gradient accumulation", "1")):
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Launch").click()
    expect(page.locator("#run-header")).to_be_visible()
    run = Run.objects.get()
    assert (run.spec["task"], run.method) == ("sequence_classification", "lora")

    live_site.start_dispatcher()
    live_site.start_worker("train0")
    wait_for(lambda: succeeded(run), 150)
    page.goto(reverse("runs:detail", args=[run.pk]))
    table = page.locator("#evaluation table")
    expect(table.locator("thead th")).to_have_text(
        ["Model", "Accuracy", "F1, mean of the labels", "Matthews correlation", "Loss", "Rows", "Time"]
    )
    expect(table.get_by_role("row", name=re.compile("^Base model"))).to_contain_text("by chance")
    tuned = table.get_by_role("row", name=re.compile("^Tuned")).locator("td").first.text_content() or ""
    assert float(tuned.split("\u202f")[0]) >= 90
    expect(page.locator("#samples .answer").first).to_contain_text(re.compile("red|blue|green"))
    assert accessibility_faults(page) == []
    page.goto(reverse("runs:list", args=[bench.team.slug]))
    expect(page.locator(f"#run-{run.pk}")).to_contain_text(re.compile("chance .* → .*Accuracy", re.DOTALL))
