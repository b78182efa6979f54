"""The acceptance test: a site as `make run` starts it, and a person who goes the whole way in a browser, from sign-in to a merged model."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import guarded_context
from tests.environment import ALL_CORES
from tests.flow.site import wait_for
from tests.flow.up import Up, dead, running_up
from webapp.settings.env import ENV, PROJECT

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1500)]

TICKETS = PROJECT / "examples" / "tickets"
PASSWORD = "the whole way, once"
STEPS = 14
POINTS = 10
# The promise is 10 s; the rest is for a machine that is busy with other tests.
STOP_SECONDS = 15
# A run of few steps; the machine may be busy with other tests.
RUN_MS = 900_000
STEPS_OF_TABLE = """
() => [...document.querySelectorAll('live-chart[metric="loss"] tbody tr')]
  .map((row) => [...row.cells].map((cell) => cell.textContent))
  .filter((cells) => cells[1] !== "")
  .map((cells) => Number(cells[0]))
"""


@pytest.fixture
def all_cores() -> Iterator[None]:
    """What is started here trains a whole model: a worker's one core would be long at it."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL_CORES)
    yield
    os.sched_setaffinity(0, own)


@pytest.fixture
def site(all_cores: None) -> Iterator[Up]:
    """A site of its own with the sample model, as a newcomer has it; the first run is left out."""
    assert (ENV.sample_model / "graft.json").is_file(), f"no sample model at {ENV.sample_model}: `make setup` makes it"
    names = {"GRAFT_ADMIN_PASSWORD": PASSWORD, "GRAFT_FIRST_RUN": "false", "GRAFT_SAMPLE_MODEL": str(ENV.sample_model.resolve())}
    with running_up(names) as up:
        up.ready(180)
        yield up


@pytest.fixture
def page(browser: Browser, site: Up) -> Iterator[Page]:
    """A browser that has never been there; no page of it may log an error or break the content security policy."""
    problems: list[str] = []
    context = guarded_context(browser, site.url, problems, viewport={"width": 1280, "height": 860}, color_scheme="light")
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()
    assert not problems


def sign_in(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def make_dataset(page: Page, name: str) -> None:
    """From the list of datasets to the report of a ready version."""
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Datasets").click()
    page.get_by_role("link", name="New dataset").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Training file", exact=True).set_input_files(TICKETS / "train.jsonl")
    page.get_by_label("Test file", exact=True).set_input_files(TICKETS / "test.jsonl")
    expect(page.get_by_text("Uploaded", exact=True)).to_have_count(2, timeout=60_000)
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url("**/datasets/versions/*/")
    expect(page.get_by_label("Layout").locator("option:checked")).to_have_text("Chat messages")
    expect(page.locator("#preview .turn.user").first).to_be_visible(timeout=60_000)
    expect(page.locator("#preview .turn.assistant .learned").first).to_be_visible()
    page.get_by_role("button", name="Validate every row").click()
    expect(page.get_by_role("heading", name="Files of this version")).to_be_visible(timeout=120_000)
    train, test = (len((TICKETS / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()) for split in ("train", "test"))
    report = page.locator("section", has=page.get_by_role("heading", name="Report", exact=True))
    for word, rows in {"Rows read": train + test, "Good": train + test, "Bad": 0, "Test": test}.items():
        stat = report.locator(".stat").filter(has=page.locator("dt", has_text=re.compile(f"^{word}$")))
        expect(stat.locator("dd")).to_have_text(str(rows))


def to_step(page: Page, name: str) -> None:
    """To a step of a new run by the list of steps above it."""
    page.get_by_role("navigation", name="Steps").get_by_role("button", name=re.compile(f"{name}$")).click()
    expect(page.locator("[aria-current=step]")).to_contain_text(name)


def launch(page: Page, dataset: str) -> None:
    """From the report to the page of a run that has just been launched."""
    page.get_by_role("link", name="Use in a run").click()
    expect(page.get_by_label("Dataset", exact=True).locator("option:checked")).to_have_text(re.compile(dataset))
    page.get_by_label("Base model", exact=True).select_option(label="SmolLM2-135M-Instruct")
    to_step(page, "Method")
    page.locator("#id_method_lora").check()
    to_step(page, "Settings")
    page.get_by_label("Learning rate", exact=True).fill("5e-4")
    page.get_by_label("Gradient accumulation", exact=True).fill("1")
    page.get_by_text("More settings").click()
    page.get_by_label("Maximum steps", exact=True).fill(str(STEPS))
    page.get_by_label("Validate every … steps", exact=True).fill(str(STEPS // 2))
    to_step(page, "Launch")
    page.get_by_label("Merged model", exact=True).select_option("original")
    page.get_by_label("Rows to answer", exact=True).fill("6")
    page.locator("#id_name").fill("tickets-lora")
    page.locator("button.primary", has_text="Launch").click()
    page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}/$"))


def watch_points_arrive(page: Page) -> None:
    """The points come to the page that stands open, in the order of their steps."""
    loaded_at = page.evaluate("performance.timeOrigin")
    header = page.locator("#run-header")
    loss = page.locator('live-chart[metric="loss"]')
    words = loss.get_by_text("Table of the points")
    words.click()
    expect(loss.locator("table")).to_be_attached()
    assert page.evaluate(STEPS_OF_TABLE) == [], "the page was opened too late to see the points arrive"

    def enough() -> bool:
        assert header.get_attribute("data-state") not in ("failed", "cancelled"), header.inner_text()
        return len(page.evaluate(STEPS_OF_TABLE)) >= POINTS

    wait_for(enough, RUN_MS / 1000, every=0.3)
    steps = page.evaluate(STEPS_OF_TABLE)
    assert steps == list(range(1, len(steps) + 1))
    expect(page.locator('[data-live="loss"]')).to_have_text(re.compile(r"^\d+\.\d+$"))
    words.click()
    expect(header).to_have_attribute("data-state", "succeeded", timeout=RUN_MS)
    expect(page.locator("[data-live-state]")).to_have_text("ended")
    words.click()
    wait_for(lambda: page.evaluate(STEPS_OF_TABLE) == list(range(1, STEPS + 1)), 10)
    assert page.evaluate("performance.timeOrigin") == loaded_at


def measured(page: Page, model: str, measure: str) -> float:
    """One figure of the evaluation's table, a percentage, as the page shows it."""
    table = page.locator("#evaluation table")
    heads = [head.strip() for head in table.locator("thead th").all_text_contents()]
    cell = table.get_by_role("row", name=re.compile(f"^{re.escape(model)}")).locator("th, td").nth(heads.index(measure))
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", cell.text_content() or "")
    assert found, table.inner_text()
    return float(found[1])


def download_merged(page: Page) -> None:
    """The merged model comes whole, as the page describes it."""
    article = page.locator("#artifacts article").filter(has_text="Merged model")
    shown = article.locator("dl.facts div").filter(has_text="SHA-256").locator("dd").text_content()
    with page.expect_download() as waiting:
        article.get_by_role("link", name="Download").click()
    download = waiting.value
    assert download.suggested_filename == article.get_by_role("heading").text_content()
    with download.path().open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == shown
        file.seek(0)
        names = {Path(name).name for name in ZipFile(file).namelist()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names


def test_the_whole_way(page: Page, site: Up) -> None:
    sign_in(page)
    make_dataset(page, "Tickets")
    launch(page, "Tickets")
    watch_points_arrive(page)
    assert measured(page, "Tuned", "Exact match") >= measured(page, "Base model", "Exact match")
    download_merged(page)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Runs").click()
    expect(page.get_by_role("row", name=re.compile("tickets-lora"))).to_contain_text("Succeeded")
    page.context.close()

    processes = site.tree()
    assert site.interrupt(STOP_SECONDS) == 0, site.text()[-3000:]
    assert dead(processes)
