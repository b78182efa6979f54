"""The general probe on the page of a run: before, after, the difference."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.webapp.runs.rows import Bench
from tests.webapp.runs.stories import Story
from webapp.core.formats import THIN
from webapp.runs.forgetting import forgetting
from webapp.runs.states import State


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


def probed(shift: float, right: float) -> dict[str, Any]:
    kinds = {
        "arithmetic": {"loss": 2.0 + shift, "choice_accuracy": right},
        "prose": {"loss": 3.5 + shift / 25, "choice_accuracy": None},
    }
    return {"loss": 3.0 + shift, "choice_accuracy": right, "kinds": kinds}


def test_the_difference_stands_beside_before_and_after() -> None:
    lines = forgetting({"base": probed(0.0, 0.75), "tuned": probed(0.5, 0.5)})
    assert [(str(line.label), line.loss, line.choices, line.look) for line in lines] == [
        ("all items", ("3.000", "3.500", "+0.50"), (f"75{THIN}%", f"50{THIN}%", "−25"), "warn"),
        ("arithmetic", ("2.000", "2.500", "+0.50"), (f"75{THIN}%", f"50{THIN}%", "−25"), "warn"),
        ("prose", ("3.500", "3.520", "+0.02"), None, "idle"),
    ]
    assert forgetting({"base": probed(0.5, 0.5), "tuned": probed(0.0, 0.75)})[0].look == "ok"


def test_a_loss_that_was_not_finite_has_no_difference() -> None:
    line = forgetting({"base": probed(0.0, 0.75), "tuned": {**probed(0.0, 0.75), "loss": None}})[0]
    assert (line.loss[2], line.look) == ("–", "idle")


@pytest.mark.parametrize("models", [(), ("base",)])
def test_nothing_is_shown_until_both_are_measured(models: tuple[str, ...]) -> None:
    assert forgetting({model: probed(0.0, 0.5) for model in models}) == []


def test_the_page_shows_it_beside_the_held_out_rows(alice: Client, bench: Bench) -> None:
    story = Story(bench.launch(), total_steps=20).begin().steps(1, 20)
    for model, data in (("base", probed(0.0, 0.75)), ("tuned", probed(0.5, 0.5))):
        story.measure(model, 1.0, 0.5)
        story.emit("eval", step=20, epoch=3.0, split="probe", model=model, rows=60, tokens=800, seconds=2.0, **data)
    run = story.tell(State.SUCCEEDED)
    assert run.summary["evals"]["probe"]["tuned"]["loss"] == 3.5
    assert run.summary["evals"]["test"].keys() == {"base", "tuned"}
    page = alice.get(reverse("runs:part", args=[run.id, "evaluation"])).text
    assert page.index("Evaluation on held-out rows") < page.index("Forgetting")
    assert '<span class="tag warn">+0.50</span>' in page
    assert "−25" in page


def test_without_the_probe_there_is_no_empty_table(alice: Client, bench: Bench) -> None:
    run = Story(bench.launch(), total_steps=20).begin().steps(1, 20).measure("base", 2.0, 0.1).measure("tuned", 1.0, 0.9)
    part = alice.get(reverse("runs:part", args=[run.tell(State.SUCCEEDED).id, "evaluation"])).text
    assert "Forgetting" not in part


def test_it_is_asked_for_in_the_form_unless_switched_off(alice: Client, bench: Bench) -> None:
    form = alice.get(reverse("runs:whole", args=[bench.team.slug])).context["form"]
    assert form["evaluation_retention"].value() is True
