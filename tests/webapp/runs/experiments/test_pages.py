"""Experiments: what one form launches, what its page shows while they run and when they have ended, and what is asked of all of them."""

from __future__ import annotations

import csv
import io
import uuid
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from jobs.errors import UserError
from jobs.methods.registry import get_method
from tests.webapp.runs import stories
from tests.webapp.runs.compare.test_page import story
from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import Membership, Role, User
from webapp.core.formats import THIN
from webapp.runs.experiments.form import ExperimentForm, initial_of
from webapp.runs.experiments.page import experiments_of, page_of
from webapp.runs.experiments.table import groups_of, thesis_table
from webapp.runs.experiments.templates import BY_ID
from webapp.runs.models import Experiment, Run
from webapp.runs.services import experiment as service
from webapp.runs.states import State
from webapp.work.models import OutboxMessage

GRID = {"methods": ["full", "lora"], "ranks": [8, 16], "rates": [], "seeds": [0, 1], "scale_alpha": False}


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


def launch(bench: Bench, axes: dict[str, Any] | None = None, **changes: Any) -> Experiment:
    values: dict[str, Any] = {
        "team": bench.team, "user": bench.user, "name": "ranks", "note": "", "token": uuid.uuid4(), "axes": axes or GRID,
        "dataset_version": bench.version, "base_model": bench.base_model,
        "shared": {"task": "causal_lm", "training": {"epochs": 1.0}, "evaluation": {}, "export": {}, "validation_share": 0.1},
    }  # fmt: skip
    return service.create_experiment(**{**values, **changes})


def form_data(bench: Bench, **changes: Any) -> dict[str, Any]:
    """What a browser sends that left every field as it was."""
    form = ExperimentForm(bench.team)
    values = {name: form[name].value() for name in form.fields}
    values |= {"dataset_version": str(bench.version.pk), "base_model": str(bench.base_model.pk)}
    return {name: value for name, value in {**values, **changes}.items() if value is not None and value is not False}


def new_url(bench: Bench, **query: str) -> str:
    return reverse("experiments:new", args=[bench.team.slug], query=query)


# -- launching ---------------------------------------------------------------------------------------------------------


def test_every_cell_is_a_run_with_its_methods_own_rate(bench: Bench) -> None:
    experiment = launch(bench)
    runs = list(experiment.runs.order_by("created_at", "pk"))
    assert sorted(run.name for run in runs) == [
        "ranks-full-s0", "ranks-full-s1", "ranks-lora-r16-s0", "ranks-lora-r16-s1", "ranks-lora-r8-s0", "ranks-lora-r8-s1",
    ]  # fmt: skip
    for run in runs:
        assert run.state == State.QUEUED
        assert run.spec["training"]["learning_rate"] is None
        assert run.spec["training"]["epochs"] == 1.0
        assert run.spec["data"]["validation_share"] == 0.1
    assert OutboxMessage.objects.count() == 6, "each has its doorbell"
    rates = {row[0].raw: row[1].raw for row in thesis_table(groups_of(runs)).rows}
    assert rates["Full fine-tuning"] == get_method("full").learning_rate
    assert rates["LoRA · rank 8"] == rates["LoRA · rank 16"] == get_method("lora").learning_rate
    assert rates["Full fine-tuning"] != rates["LoRA · rank 8"]


def test_the_same_form_sent_twice_makes_one_experiment(bench: Bench) -> None:
    token = uuid.uuid4()
    assert launch(bench, token=token) == launch(bench, token=token)
    assert (Experiment.objects.count(), Run.objects.count()) == (1, 6)
    other = make_bench("charlie")
    assert launch(other, token=token).team == other.team, "the token of another team is another"


def test_all_or_none_are_launched(bench: Bench) -> None:
    with pytest.raises(UserError, match="adapter_fusion-s0: "):
        launch(bench, axes={"lines": "full\nadapter_fusion"})
    with pytest.raises(ValueError, match="at most 100"):
        launch(bench, axes={"lines": "full seed=0-60\nlora seed=0-60"})
    assert not Run.objects.exists()
    assert not Experiment.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_cells_are_added_once(bench: Bench) -> None:
    experiment = launch(bench)
    more = {**GRID, "methods": ["lora"], "ranks": [16, 32], "seeds": [1, 2]}
    added = service.add_cells(experiment, user=bench.user, axes=more)
    assert sorted(run.name for run in added) == ["ranks-lora-r16-s2", "ranks-lora-r32-s1", "ranks-lora-r32-s2"]
    assert service.add_cells(experiment, user=bench.user, axes=more) == []
    assert experiment.runs.count() == 9
    assert all(run.spec["training"]["epochs"] == 1.0 for run in added), "what is shared stays the experiment's"


def test_nothing_is_added_where_the_data_is_gone(bench: Bench) -> None:
    experiment = launch(bench, axes={"lines": "lora"})
    experiment.spec["dataset_version"] = str(uuid.uuid4())
    experiment.save()
    with pytest.raises(UserError, match="The dataset ranks is not ready"):
        service.add_cells(experiment, user=bench.user, axes={"lines": "dora"})
    assert Run.objects.count() == 1


def test_a_rate_written_out_is_the_same_cell(bench: Bench) -> None:
    experiment = launch(bench, axes={"lines": "lora"})
    assert service.add_cells(experiment, user=bench.user, axes={"lines": "lora rank=16 rate=2e-4"}) == []


def test_stop_all_and_try_again(bench: Bench) -> None:
    experiment = launch(bench)
    first = experiment.runs.earliest("created_at")
    story(first)
    assert service.stop_all(experiment, actor="alice") == 5
    assert service.stop_all(experiment, actor="alice") == 0
    assert sorted(experiment.runs.values_list("state", flat=True)) == ["cancelled"] * 5 + ["succeeded"]
    assert service.retry_all(experiment, State.FAILED, actor="alice") == 0
    assert service.retry_all(experiment, State.CANCELLED, actor="alice") == 5
    assert experiment.runs.filter(state=State.QUEUED).count() == 5


# -- the form ----------------------------------------------------------------------------------------------------------


def test_the_form_launches_what_it_shows(alice: Client, bench: Bench) -> None:
    data = form_data(bench, name="grid", methods=["full", "lora"], ranks="8, 16", seeds="0-2", rates="own, 1e-4")
    shown = alice.post(new_url(bench), {**data, "preview": "1"})
    assert shown.status_code == 200
    assert "18 runs will be launched" in shown.text
    assert "Launch 18 runs" in shown.text
    assert "2e-5, 1e-4" in shown.text, "own is each method's own"
    assert not Run.objects.exists()
    answer = alice.post(new_url(bench), data)
    experiment = Experiment.objects.get()
    assert answer["Location"] == reverse("experiments:detail", args=[experiment.pk])
    assert experiment.runs.count() == 18
    assert alice.post(new_url(bench), data)["Location"] == answer["Location"], "the button pressed twice"
    assert Run.objects.count() == 18


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ranks": "8, x"}, "“x” is no whole number"),
        ({"rates": "quick"}, "“quick” is no learning rate"),
        ({"seeds": "0-1000"}, "more than the 100 runs"),
        ({"methods": []}, "There is nothing to launch"),
        ({"seeds": "0-99", "methods": ["lora", "dora"]}, "These are 200 runs; one form launches at most 100."),
        ({"kind": "list", "lines": "lora\nlorra"}, "Line 2: there is no method “lorra”"),
        ({"kind": "list", "lines": ""}, "There is nothing to launch"),
        ({"training_epochs": "0"}, "Epochs"),
        ({"kind": "grid", "methods": ["lora"], "ranks": "4000"}, "LoRA: "),
    ],
)
def test_what_cannot_be_launched_says_why_and_loses_nothing(changes: dict[str, Any], words: str, alice: Client, bench: Bench) -> None:
    answer = alice.post(new_url(bench), form_data(bench, **{"name": "kept name", **changes}))
    assert answer.status_code == 422
    assert words in answer.text
    assert 'value="kept name"' in answer.text
    for value in changes.values():
        if isinstance(value, str):
            assert value in answer.text.replace("&#x27;", "'")
    assert not Experiment.objects.exists()


def test_every_template_launches_as_it_is(alice: Client, bench: Bench) -> None:
    counts = {"full-lora-qlora": 3, "ranks": 5, "seeds": 3, "rates": 5}
    assert set(counts) == set(BY_ID)
    for name, count in counts.items():
        page = alice.get(new_url(bench, template=name))
        assert "Filled in as" in page.text
        values = {key: value for key, value in BY_ID[name].values.items() if key in ExperimentForm.base_fields or "_" in key}
        answer = alice.post(new_url(bench), form_data(bench, name=name, **values))
        assert answer.status_code == 302, name
        assert Experiment.objects.get(name=name).runs.count() == count


def test_the_thesis_without_its_faults(alice: Client, bench: Bench) -> None:
    alice.post(new_url(bench), form_data(bench, name="thesis", **BY_ID["full-lora-qlora"].values))
    specs = {run.method: run.spec for run in Run.objects.all()}
    assert set(specs) == {"full", "lora", "qlora"}
    for method, spec in specs.items():
        training = spec["training"]
        assert (training["micro_batch"], training["gradient_accumulation"], training["epochs"]) == (4, 2, 3.0)
        assert (training["schedule"], training["optimiser"], training["weight_decay"]) == ("linear", "adamw_8bit", 0.01)
        assert training["warmup_share"] * 846 == pytest.approx(5, abs=0.05)
        assert training["learning_rate"] is None, "each method's own, where the thesis had one for all"
        assert training["final_weights"] == "best"
        if method != "full":
            assert {name: spec["method"]["settings"][name] for name in ("rank", "alpha", "dropout")} == {
                "rank": 16,
                "alpha": 16,
                "dropout": 0,
            }


def test_a_clone_fills_the_form_in(alice: Client, bench: Bench) -> None:
    experiment = launch(bench, axes={**GRID, "rates": [None, 1e-4], "scale_alpha": True}, note="why")
    values = initial_of(experiment)
    assert (values["ranks"], values["rates"], values["seeds"], values["training_epochs"]) == ("8, 16", "own, 0.0001", "0, 1", 1.0)
    page = alice.get(new_url(bench, clone=str(experiment.pk))).text
    assert 'value="own, 0.0001"' in page
    other = launch(make_bench("charlie"))
    assert alice.get(new_url(bench, clone=str(other.pk))).status_code == 404


def test_a_team_without_data_is_led_to_it(alice: Client, bench: Bench) -> None:
    type(bench.version).objects.all().update(state="draft")
    assert reverse("datasets:new", args=["alice"]) in alice.get(new_url(bench)).text


# -- the page ----------------------------------------------------------------------------------------------------------


def ended(bench: Bench) -> Experiment:
    """Full fine-tuning and LoRA over two seeds each, and QLoRA, which failed."""
    experiment = launch(bench, axes={"lines": "full seed=0-1\nlora seed=0-1\nqlora"})
    figures = {"full": (18_000_000_000, (0.25, 0.25), 139_399_488), "lora": (4_320_000_000, (0.75, 0.80), 4_884_480)}
    for method, (memory, accuracies, trained) in figures.items():
        for run, accuracy in zip(experiment.runs.filter(method=method).order_by("name"), accuracies, strict=True):
            story(run, accuracy=accuracy, memory=memory, trainable_parameters=trained)
    stories.failed(experiment.runs.get(method="qlora"))
    return experiment


def test_the_table_of_the_thesis(bench: Bench) -> None:
    groups = groups_of(list(ended(bench).runs.order_by("created_at", "pk")))
    table = thesis_table(groups)
    names = [head.id for head in table.heads]
    rows = {row[0].raw: dict(zip(names, row, strict=True)) for row in table.rows}
    full, lora, qlora = rows["Full fine-tuning"], rows["LoRA"], rows["QLoRA"]
    assert lora["peak_memory_bytes"].words == f"4.32{THIN}GB ± 0{THIN}B"
    assert lora["peak_memory_bytes"].notes == (f"−76{THIN}%",), "as the thesis has it: less than full fine-tuning"
    assert lora["trainable_parameters"].words == f"4{THIN}884{THIN}480"
    assert lora["trainable_parameters"].notes == (f"−96.5{THIN}%",)
    assert lora["label_accuracy"].raw == pytest.approx(0.775)
    assert lora["label_accuracy"].words == f"77.5{THIN}% ± 3.5{THIN}%"
    # 12.706 x 0.035355 / sqrt 2 = 0.3177: two seeds say little, and no share is above all.
    assert lora["label_accuracy"].notes == ("45.7–100.0", f"+52.5{THIN}points")
    assert lora["label_accuracy"].best
    assert full["label_accuracy"].notes == ("25.0–25.0",)
    assert lora["runs"].words == "2 of 2"
    assert qlora["runs"].words == "0 of 1"
    assert qlora["peak_memory_bytes"].words == "–", "a run that failed has no place in a mean"


def test_one_seed_has_the_interval_of_its_rows(bench: Bench) -> None:
    experiment = launch(bench, axes={"lines": "lora"})
    story(experiment.runs.get(), accuracy=0.75)
    table = thesis_table(groups_of(list(experiment.runs.all())))
    cell = next(cell for head, cell in zip(table.heads, table.rows[0], strict=True) if head.id == "label_accuracy")
    assert cell.words == f"75.0{THIN}%"
    assert cell.notes == ("62.8–84.2",)


def test_the_page(alice: Client, bench: Bench) -> None:
    experiment = ended(bench)
    page = alice.get(reverse("experiments:detail", args=[experiment.pk])).text
    assert "4 of 5 done" in page
    assert "1 failed" in page
    assert "Retry 1 failed" in page
    assert "Failed: nonfinite" in page
    assert "Label accuracy over peak memory" in page or "over peak memory" in page
    assert page.count("<circle") == 2
    assert f"{reverse('runs:compare', args=['alice'])}?experiment={experiment.pk}" in page
    assert "every 3s" not in page, "nothing moves, so nothing asks again"
    assert "Stop" not in page
    context = page_of(experiment)
    assert context["seeds"] == [0, 1]
    assert [[len(cell) for cell in row.cells] for row in context["matrix"]] == [[1, 1], [1, 1], [1, 0]]


def test_what_moves_is_asked_for_again(alice: Client, bench: Bench) -> None:
    experiment = launch(bench)
    url = reverse("experiments:detail", args=[experiment.pk])
    page = alice.get(url).text
    assert "every 3s" in page
    assert "Stop all 6" in page
    assert "Drawn as soon as" in page
    assert alice.get(url, headers={"HX-Request": "true"}).text.lstrip().startswith('<div id="live"')


def test_actions_from_the_page(alice: Client, bench: Bench) -> None:
    experiment = launch(bench)
    assert "6 runs are being stopped." in alice.post(reverse("experiments:stop", args=[experiment.pk]), follow=True).text
    retried = alice.post(reverse("experiments:retry", args=[experiment.pk]), {"state": "cancelled"}, follow=True)
    assert "6 runs are in the queue again." in retried.text
    added = alice.post(reverse("experiments:add", args=[experiment.pk]), {"kind": "list", "lines": "dora"}, follow=True)
    assert "1 run was added." in added.text
    again = alice.post(reverse("experiments:add", args=[experiment.pk]), {"kind": "list", "lines": "dora"}, follow=True)
    assert "Nothing was added" in again.text
    wrong = alice.post(reverse("experiments:add", args=[experiment.pk]), {"kind": "list", "lines": "dorra"})
    assert wrong.status_code == 422
    assert "Line 1: there is no method “dorra”" in wrong.text
    assert experiment.runs.count() == 7


def test_a_viewer_sees_and_does_nothing(bench: Bench, client: Client) -> None:
    experiment = launch(bench)
    vera = User.objects.create_user(username="vera")
    Membership.objects.create(team=bench.team, user=vera, role=Role.VIEWER)
    client.force_login(vera)
    page = client.get(reverse("experiments:detail", args=[experiment.pk])).text
    assert "Stop all" not in page
    assert "Add runs" not in page
    assert "Delete the experiment" not in page


def test_deleting_keeps_the_runs(alice: Client, bench: Bench) -> None:
    experiment = launch(bench)
    url = reverse("experiments:delete", args=[experiment.pk])
    assert "Nothing was deleted" in alice.post(url, {"confirm": "rank"}, follow=True).text
    assert Experiment.objects.count() == 1
    assert "Its runs are still there." in alice.post(url, {"confirm": "ranks"}, follow=True).text
    assert (Experiment.objects.count(), Run.objects.filter(experiment=None).count()) == (0, 6)


@pytest.mark.parametrize("form", ["csv", "md", "tex"])
def test_the_table_as_a_file(form: str, alice: Client, bench: Bench) -> None:
    experiment = ended(bench)
    answer = alice.get(reverse("experiments:export", args=[experiment.pk, form]))
    assert answer["Content-Disposition"] == f'attachment; filename="ranks.{form}"'
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        assert [row["method"] for row in rows] == ["full", "lora", "qlora"]
        assert rows[1]["peak_memory_bytes"] == "4320000000"
        assert float(rows[1]["label_accuracy_deviation"]) == pytest.approx(0.0353553, abs=1e-7)
        assert rows[1]["label_accuracy_runs"] == "2"
        assert rows[2]["label_accuracy"] == ""
    else:
        assert {"md": "| LoRA |", "tex": "LoRA & "}[form] in answer.text


def test_pages_take_a_constant_number_of_queries(bench: Bench) -> None:
    small, large = launch(bench, axes={"lines": "lora"}), launch(bench, axes={"lines": "lora seed=0-19\nfull seed=0-19"})

    def queries(work: Any) -> int:
        with CaptureQueriesContext(connection) as seen:
            work()
        return len(seen)

    assert queries(lambda: page_of(small)) == queries(lambda: page_of(large)) == 1
    few = queries(lambda: list(experiments_of(bench.team, None)))
    for _ in range(10):
        launch(bench, axes={"lines": "lora"})
    assert queries(lambda: list(experiments_of(bench.team, None))) == few == 2


def test_the_list(alice: Client, bench: Bench) -> None:
    url = reverse("experiments:list", args=[bench.team.slug])
    empty = alice.get(url).text
    assert "An experiment launches many runs from one form" in empty
    assert new_url(bench, template="full-lora-qlora") in empty
    ended(bench)
    launch(make_bench("charlie"), name="secret")
    page = alice.get(url).text
    assert "1 of 5 failed" in page
    assert "secret" not in page
