"""Analyses: launched beside the form, shown with their curves and tables, and taken over into a new run."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from jobs.analysis.defaults import EVENT
from jobs.analysis.ranks import LayerSpectrum, by_module, spread_ranks, suggest_rank
from jobs.methods.ranks import write_ranks
from jobs.methods.registry import get_method
from tests.webapp.runs.rows import Bench, make_bench
from tests.webapp.runs.stories import Story
from tests.webapp.runs.test_advice import sent
from tests.webapp.runs.test_views import form_data
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services.analyse import create_analysis
from webapp.runs.states import State
from webapp.work.models import OutboxMessage

DIRECTIONS = 16


@pytest.fixture
def alice(bench: Bench) -> Client:
    client = Client()
    client.force_login(bench.user)
    return client


def launch(bench: Bench, method: str = "lora") -> Run:
    return create_analysis(bench.recipe(method=method), team=bench.team, user=bench.user)


def found(rest: float = 0.0) -> dict[str, Any]:
    """An analysis of two layers of two kinds: one steep, one flat; `rest` is the energy beyond the directions that were looked at."""
    layers = [
        LayerSpectrum(f"model.layers.{place}.{module}", place, module, 32, 32, values, sum(value**2 for value in values) + rest)
        for place in range(2)
        for module, values in (("q_proj", [3.0, *[0.1] * 15]), ("up_proj", [1.0] * 16))
    ]
    suggested = suggest_rank(layers)
    pattern = spread_ranks(layers, suggested.rank)
    return {
        "name": EVENT, "step": 0, "version": 1, "model": "Tiny", "bits_of_base": 16, "seconds": 17.0, "peak_bytes": 2e9,
        "spectrum": {
            "batches": 2, "rows": 8, "labels": 40, "directions": DIRECTIONS, "suggested_rank": suggested.rank,
            "suggested_rank_is_at_least": suggested.at_least, "rank_pattern": pattern, "parameters": {"uniform": 4096, "pattern": 4032},
            "modules": by_module(layers), "layers": [{**layer.to_json(), "singular_values": None} for layer in layers],
        },
        "bits": {
            "widths": [
                {"bits": bits, "loss": loss, "relative_error": error, "repaired": {"64": 0.44}}
                for bits, loss, error in ((16, 8.06, 0.0), (8, 8.23, 0.009), (4, 8.59, 0.094))
            ],
            "advice": [
                {"bits": 16, "loss_rise": 0.0, "rank": 16, "error_repaired_at_most": None},
                {"bits": 8, "loss_rise": 0.021, "rank": 16, "error_repaired_at_most": None},
                {"bits": 4, "loss_rise": 0.066, "rank": 64, "error_repaired_at_most": 0.44},
            ],
        },
    }  # fmt: skip


def finish(run: Run, data: dict[str, Any]) -> Run:
    story = Story(run)
    story.emit("phase", name="analysing", done=2, total=4, unit="batches")
    story.emit("method", **data)
    story.emit("finished", outcome="succeeded", step=0)
    story.tell(State.SUCCEEDED)
    return run


def page(client: Client, run: Run) -> str:
    answer = client.get(reverse("runs:detail", args=[run.id]))
    assert answer.status_code == 200
    return answer.text


def test_the_form_launches_an_analysis_of_what_it_holds(alice: Client, bench: Bench) -> None:
    data = form_data(bench, name="mine", method="qlora", settings_qlora_rank="8", training_micro_batch="2")
    answer = alice.post(reverse("runs:analyse", args=["alice"]), data)
    run = Run.objects.get()
    assert answer["Location"] == reverse("runs:detail", args=[run.id])
    assert (run.kind, run.state, run.name, run.method) == (Kind.ANALYSE, State.QUEUED, "mine, rank and bits", "qlora")
    assert (run.spec["method"]["settings"]["rank"], run.spec["training"]["micro_batch"]) == (8, 2)
    assert OutboxMessage.objects.count() == 1


def test_a_form_with_faults_launches_nothing(alice: Client, bench: Bench) -> None:
    answer = alice.post(reverse("runs:analyse", args=["alice"]), form_data(bench, training_epochs="0"))
    assert answer.status_code == 422
    assert (Run.objects.count(), OutboxMessage.objects.count()) == (0, 0)


def test_a_long_name_leaves_room_for_what_it_is(bench: Bench) -> None:
    launch(bench)
    run = create_analysis(bench.recipe(name="n" * 120), team=bench.team, user=bench.user)
    assert len(run.name) == 120
    assert run.name.endswith("n, rank and bits")


def test_the_page_shows_ranks_curves_and_bits_and_how_sure_it_is(alice: Client, bench: Bench) -> None:
    text = page(alice, finish(launch(bench), found()))
    assert "Rank and bits" in text
    assert "How sure is it? Not very." in text
    assert "Use rank 16 in a new run" in text
    assert "or more" not in text
    assert "Use 8 bits" in text
    assert "6.6\u202f%" in text
    assert "at most 44" in text
    assert 'id="evaluation"' not in text
    assert reverse("runs:combine", args=["alice"]) not in text, "it left no adapter"
    context = alice.get(reverse("runs:detail", args=[Run.objects.get().id])).context["analysis"]
    assert context["columns"] == ["q_proj", "up_proj"]
    assert [(row.layer, row.cells) for row in context["layer_rows"]] == [("0", ["1", "15"]), ("1", ["1", "15"])]
    assert context["curves"]["rank"] == {"x": [0, 1], "columns": {"q_proj": [1, 1], "up_proj": [15, 15]}}
    assert context["curves"]["held"]["x"] == list(range(1, 17))
    assert context["curves"]["held"]["columns"]["up_proj"] == pytest.approx([place / 16 for place in range(1, 17)])


def test_a_sketch_that_is_too_narrow_says_so(alice: Client, bench: Bench) -> None:
    text = page(alice, finish(launch(bench), found(rest=100.0)))
    assert "16 or more" in text
    assert "beyond the 16 directions" in text
    assert "&gt; 16" in text


def test_before_it_has_found_anything_the_page_waits(alice: Client, bench: Bench) -> None:
    run = launch(bench)
    assert 'id="analysis"' in page(alice, run)
    assert "How sure is it?" not in page(alice, run)
    assert alice.get(reverse("runs:part", args=[run.id, "analysis"])).status_code == 200


@pytest.mark.parametrize(("take", "method", "rank"), [("rank", "lora", 16), ("8", "lora_8bit", 16), ("4", "qlora", 64)])
def test_what_it_suggests_is_taken_over_into_the_form(alice: Client, bench: Bench, take: str, method: str, rank: int) -> None:
    run = finish(launch(bench), found())
    usual = {setting.name: setting.default for setting in get_method(method).settings}
    alpha = rank * usual["alpha"] / usual["rank"]
    answer = alice.get(reverse("runs:whole", args=["alice"], query={"analysis": str(run.id), "take": take}))
    form = answer.context["form"]
    assert (form["method"].value(), form[f"settings_{method}_rank"].value(), form[f"settings_{method}_alpha"].value()) == (
        method,
        rank,
        alpha,
    )
    assert (form["dataset_version"].value(), form["base_model"].value()) == (bench.version.id, bench.base_model.id)
    assert form["name"].value() == ""
    assert "The form is filled in as advised." in answer.text


def test_the_pattern_is_taken_over_as_lines(alice: Client, bench: Bench) -> None:
    run = finish(launch(bench), found())
    pattern = found()["spectrum"]["rank_pattern"]
    form = alice.get(reverse("runs:whole", args=["alice"], query={"analysis": str(run.id), "take": "pattern"})).context["form"]
    assert form["settings_lora_rank_pattern"].value() == write_ranks(pattern)
    answer = alice.post(reverse("runs:whole", args=["alice"]), {**sent(form), "name": "with pattern"})
    assert answer.status_code == 302, answer.context["form"].errors
    launched = Run.objects.get(name="with pattern")
    assert launched.kind == Kind.TRAIN
    assert launched.spec["method"]["settings"]["rank_pattern"] == write_ranks(pattern)


def test_only_an_analysis_that_has_found_something_gives_a_suggestion(alice: Client, bench: Bench) -> None:
    run = launch(bench)

    def status(**query: str) -> int:
        return alice.get(reverse("runs:whole", args=["alice"], query=query)).status_code

    assert status(analysis=str(run.id), take="rank") == 404
    finish(run, {**found(), "bits": None})
    assert status(analysis=str(run.id), take="rank") == 200
    assert [status(analysis=str(run.id), take=take) for take in ("8", "nonsense")] == [404, 404]
    assert status(analysis=str(bench.launch().id), take="rank") == 404, "a training"
    assert status(analysis="no-uuid", take="rank") == 404
    assert "Bits of the base" not in page(alice, run)


def test_another_teams_analysis_is_not_there(bench: Bench) -> None:
    run = finish(launch(bench), found())
    charlie = Client()
    charlie.force_login(make_bench("charlie").user)
    assert charlie.get(reverse("runs:detail", args=[run.id])).status_code == 404
    assert charlie.get(reverse("runs:part", args=[run.id, "analysis"])).status_code == 404
    assert charlie.post(reverse("runs:analyse", args=["alice"]), form_data(bench)).status_code == 404
    taken = reverse("runs:whole", args=["charlie"], query={"analysis": str(run.id), "take": "rank"})
    assert charlie.get(taken).status_code == 404
    assert Run.objects.count() == 1
