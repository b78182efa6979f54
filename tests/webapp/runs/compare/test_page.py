"""The page that compares runs: what its link means, what it shows, who sees it, and that it stays fast."""

from __future__ import annotations

import csv
import io
import uuid
from typing import Any

import pytest
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from webapp.core.formats import THIN
from webapp.runs.compare.configuration import configuration
from webapp.runs.compare.fairness import findings
from webapp.runs.compare.page import comparison, page_of
from webapp.runs.compare.quantities import LAST, MEMORY, SECONDS, interval_of, measured, signed
from webapp.runs.compare.results import paper
from webapp.runs.figures import headline_column
from webapp.runs.models import Experiment, Run


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


def url(bench: Bench, *runs: Run, **query: str) -> str:
    asked = QueryDict(mutable=True)
    asked.setlist("run", [str(run.pk) for run in runs])
    asked.update(query)
    return f"{reverse('runs:compare', args=[bench.team.slug])}?{asked.urlencode()}"


def story(run: Run, *, steps: int = 20, accuracy: float = 0.95, memory: int = 1_000_000_000, **plan: Any) -> Run:
    """A run that has ended, with figures of its own."""
    told = stories.Story(run, total_steps=steps).begin().steps(1, steps)
    for event in told.events:
        if event.kind == "plan":
            event.data.update(plan)
        if event.kind == "step":
            event.data["memory"] = {"resident_bytes": memory}
    told.evaluate("test", "base", steps, 3.1, 0.1)
    told.evaluate("test", "tuned", steps, 0.2, accuracy)
    return told.tell(stories.State.SUCCEEDED)


# -- the link ----------------------------------------------------------------------------------------------------------


def test_an_empty_comparison_offers_runs(alice: Client, bench: Bench) -> None:
    bench.launch(name="first one")
    page = alice.get(url(bench)).text
    assert "Nothing to compare yet" in page
    assert "first one · lora · Queued" in page


def test_runs_stand_in_the_order_of_the_link_each_once(bench: Bench) -> None:
    one, two = bench.launch(name="one"), bench.launch(name="two")
    asked = QueryDict(f"run={two.pk}&run={one.pk}&run={two.pk}&run=")
    found = comparison(bench.team, asked)
    assert [run.name for run in found.runs] == ["two", "one"]
    assert [(entry.place, entry.colour, entry.dash) for entry in found.entries] == [(1, "s1", 0), (2, "s2", 0)]
    assert found.missing == 0
    assert found.entries[0].without == f"run={one.pk}"


def test_colour_and_dash_go_by_place(bench: Bench) -> None:
    first = bench.launch()
    runs = [first, *(Run.objects.create(**{**_copy(first), "name": str(number)}) for number in range(2, 31))]
    entries = comparison(bench.team, QueryDict("&".join(f"run={run.pk}" for run in runs))).entries
    assert len(entries) == 30
    assert (entries[8].colour, entries[8].dash) == ("s1", 1)
    assert len({(entry.colour, entry.dash) for entry in entries}) == 30, "no two runs look alike"


def _copy(run: Run) -> dict[str, Any]:
    names = (
        "team",
        "name",
        "created_by",
        "dataset_version",
        "base_model",
        "method",
        "spec",
        "queued_at",
        "lease_expires_at",
        "summary",
        "state",
    )
    return {name: getattr(run, name) for name in names}


def test_what_is_not_of_the_team_is_counted_and_not_told(alice: Client, bench: Bench) -> None:
    mine, other = bench.launch(name="mine"), make_bench("charlie").launch(name="secret")
    page = alice.get(url(bench, mine)).text
    assert "secret" not in alice.get(url(bench, mine, other)).text
    assert "2 runs of this link are not there any more." in alice.get(f"{url(bench, mine, other)}&run={uuid.uuid4()}").text
    assert "not there any more" not in page
    assert "1 run of this link is not there any more." in alice.get(f"{url(bench, mine)}&run=nonsense").text


def test_the_runs_of_an_experiment(bench: Bench) -> None:
    experiment = Experiment.objects.create(team=bench.team, name="grid", created_by=bench.user)
    runs = [bench.launch(name=name) for name in ("a", "b", "c")]
    Run.objects.filter(pk__in=[run.pk for run in runs[1:]]).update(experiment=experiment)
    found = comparison(bench.team, QueryDict(f"experiment={experiment.pk}"))
    assert [run.name for run in found.runs] == ["b", "c"]
    assert found.query().getlist("run") == [str(run.pk) for run in runs[1:]], "the permanent link names them one by one"
    assert comparison(make_bench("charlie").team, QueryDict(f"experiment={experiment.pk}")).runs == []


def test_a_run_is_found_and_added_without_scripts(alice: Client, bench: Bench) -> None:
    mine, wanted = bench.launch(name="mine"), bench.launch(name="arc lora 7")
    bench.launch(name="other")
    page = alice.get(url(bench, mine, find="ARC 7")).text
    assert f'<option value="{wanted.pk}">' in page
    assert "other · lora" not in page
    assert "No other run has such a name." in alice.get(url(bench, mine, find="zzz")).text


# -- results -----------------------------------------------------------------------------------------------------------


def test_the_table_of_results(bench: Bench) -> None:
    full = story(bench.launch(name="full", method="full"), accuracy=0.25, memory=4_000_000_000, trainable_parameters=139_399_488)
    lora = story(bench.launch(name="lora"), accuracy=0.75, memory=1_000_000_000)
    table = paper([full, lora], full)
    names = [head.id for head in table.heads]
    assert names == [
        "run", "method", "trainable_parameters", "training_seconds", "peak_memory_bytes", "label_accuracy", "held_out_loss",
        "validation_loss", "best_validation_loss",
    ]  # fmt: skip
    row = dict(zip(names, table.rows[1], strict=True))
    assert row["method"].words == "LoRA"
    assert row["trainable_parameters"].words == f"4{THIN}884{THIN}480"
    assert row["trainable_parameters"].notes == (f"3.50{THIN}%", f"−96.5{THIN}%")
    assert row["peak_memory_bytes"].raw == 1_000_000_000
    assert row["peak_memory_bytes"].notes == (f"−75{THIN}%",)
    assert row["peak_memory_bytes"].best
    assert row["training_seconds"].raw == pytest.approx(8.0)
    assert row["training_seconds"].notes == (f"±0.0{THIN}%",)
    assert row["label_accuracy"].words == f"75.0{THIN}%"
    # Wilson's interval of 45 of 60 rows.
    assert row["label_accuracy"].notes == ("62.8–84.2", f"+50.0{THIN}points")
    assert row["label_accuracy"].best
    assert row["best_validation_loss"].notes == ("@ 20", "±0.000")
    assert table.rows[0][4].notes == (), "the baseline is not compared to itself"


def test_an_interval_is_not_made_up(bench: Bench) -> None:
    run = story(bench.launch(), accuracy=0.75)
    column = headline_column([measured(run)])
    assert column is not None
    found = interval_of(run, column)
    assert found is not None
    assert found[1] == 60
    run.spec["evaluation"]["rows"] = 50  # 37.5 of 50 rows is no count: not all of them had an answer
    assert interval_of(run, column) is None
    run.spec["evaluation"]["rows"] = 40
    assert interval_of(run, column) is not None


def test_a_run_that_has_not_begun_has_no_figures(bench: Bench) -> None:
    queued = bench.launch()
    table = paper([queued], None)
    assert [cell.words for cell in table.rows[0][2:]] == ["–", "–", "–"]
    assert [each.value(queued) for each in (SECONDS, MEMORY, LAST)] == [None, None, None]


def test_signs() -> None:
    assert signed(-0.0001, 2, "") == "±0.00"
    assert signed(12.4, 0, "%") == f"+12{THIN}%"
    assert signed(-76.2, 0, "%") == f"−76{THIN}%"


def test_the_page_shows_it_all(alice: Client, bench: Bench) -> None:
    one, two = story(bench.launch(name="one")), story(bench.launch(name="two", method="dora", seed=7), accuracy=0.8)
    page = alice.get(url(bench, one, two, base=str(one.pk))).text
    for words in (
        "Not everything is the same",
        "Seed:",
        "62.8",
        "95 % interval",
        "Settings of the methods",
        "\\begin{tabular}",
        "baseline",
    ):
        assert (words in page) == (words != "62.8"), words
    assert "every 5s" not in page, "nothing moves, so nothing asks again"
    bench.launch(name="three")
    assert "every 5s" in alice.get(url(bench, one, Run.objects.get(name="three"))).text


def test_htmx_gets_the_figures_alone(alice: Client, bench: Bench) -> None:
    page = alice.get(url(bench, story(bench.launch())), headers={"HX-Request": "true"}).text
    assert page.lstrip().startswith('<div id="figures"')


def test_thirty_runs_take_as_many_queries_as_two(bench: Bench) -> None:
    first = story(bench.launch())
    runs = [first, *(Run.objects.create(**{**_copy(first), "name": str(number)}) for number in range(2, 31))]

    def queries(count: int) -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            page_of(comparison(bench.team, QueryDict("&".join(f"run={run.pk}" for run in runs[:count]))))
        return len(seen)

    assert queries(2) == queries(30) == 2


# -- what differs ------------------------------------------------------------------------------------------------------


def test_only_what_differs_is_shown(bench: Bench) -> None:
    one = bench.launch(name="one", training={"epochs": 1.0})
    two = bench.launch(name="two", method="full", training={"epochs": 2.0, "learning_rate": 1e-4})
    found = configuration([one, two])
    lines = {line.path: (line.label, line.values) for section in found.sections for line in section.lines}
    assert lines["training.epochs"] == ("Epochs", ["1", "2"])
    assert lines["training.learning_rate"] == ("Learning rate", ["2e-4, the method's own", "1e-4"])
    assert lines["method.settings.rank"] == ("Rank", ["16", "–"])
    assert lines["general.method"] == ("Method", ["LoRA", "Full fine-tuning"])
    assert "training.micro_batch" not in lines
    assert "name" not in lines
    assert found.differing == len(lines) < found.total
    everything = configuration([one, two], everything=True)
    assert sum(len(section.lines) for section in everything.sections) == everything.total
    assert configuration([one]).sections == []


def test_what_makes_a_comparison_unfair(bench: Bench) -> None:
    one = story(bench.launch(name="one"))
    two = story(bench.launch(name="two", seed=3), precision="bfloat16", device={"kind": "cuda", "name": "A100"}, test_rows=30)
    Run.objects.filter(pk=two.pk).update(code_version="0.0.1")
    two.refresh_from_db()
    found = {finding.id: finding.groups for finding in findings([one, two])}
    assert set(found) == {"seed", "precision", "device", "rows", "code"}
    assert found["device"] == [("8-core processor", [1]), ("A100", [2])]
    assert found["seed"] == [("0", [1]), ("3", [2])]
    assert findings([one, one]) == []
    queued = bench.launch(name="queued")
    assert findings([one, queued]) == [], "what is not known yet is not held against a run"


def test_other_data_and_another_model_are_told(bench: Bench) -> None:
    one, other = bench.launch(name="one"), make_bench("charlie")
    two = Run.objects.create(**{**_copy(one), "dataset_version": other.version, "base_model": other.base_model})
    other.version.dataset.name, two.base_model.name = "letters", "Other"
    two.dataset_version.dataset.name = "letters"
    one.base_model.facts, two.base_model.facts = {"chat_template": True}, {"chat_template": False}
    found = {finding.id: [value for value, _places in finding.groups] for finding in findings([one, two])}
    assert found["data"] == ["tickets@1", "letters@1"]
    assert found["base"] == ["Tiny 1", "Other 1"]
    assert found["template"] == ["chat template of Tiny", "Other has no chat template"]


# -- what is taken along -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "kind"), [("csv", "text/csv"), ("md", "text/markdown"), ("tex", "application/x-tex")])
def test_the_table_as_a_file(form: str, kind: str, alice: Client, bench: Bench) -> None:
    run = story(bench.launch(name="a_b & c|d"))
    asked = url(bench, run).partition("?")[2]
    answer = alice.get(f"{reverse('runs:compare-export', args=[bench.team.slug, form])}?{asked}")
    assert answer.status_code == 200
    assert answer["Content-Type"] == f"{kind}; charset=utf-8"
    assert answer["Content-Disposition"] == f'attachment; filename="alice-runs.{form}"'
    expected = {"csv": "a_b & c|d", "md": r"a\_b & c\|d", "tex": r"a\_b \& c\textbar{}d"}
    assert expected[form] in answer.text


def test_the_csv_has_plain_units(alice: Client, bench: Bench) -> None:
    run = story(bench.launch(name="one"), accuracy=0.75)
    asked = url(bench, run).partition("?")[2]
    body = alice.get(f"{reverse('runs:compare-export', args=[bench.team.slug, 'csv'])}?{asked}").text
    row = next(csv.DictReader(io.StringIO(body, newline="")))
    assert row["run_id"] == str(run.pk)
    assert float(row["training_seconds"]) == pytest.approx(8.0)
    assert row["peak_memory_bytes"] == "1000000000"
    assert row["learning_rate"] == "0.0002"
    assert (row["label_accuracy"], row["label_accuracy_base"], row["label_accuracy_rows"]) == ("0.75", "0.1", "60")
    assert float(row["label_accuracy_low"]) == pytest.approx(0.6277, abs=1e-4)
    assert row["best_validation_loss_step"] == "20"


def test_there_is_no_other_form(alice: Client, bench: Bench) -> None:
    assert alice.get(reverse("runs:compare-export", args=[bench.team.slug, "xml"])).status_code == 404
