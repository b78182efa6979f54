"""The pages of runs: what they show, who may see them, what they ask of the services."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from jobs.errors import UserError
from jobs.methods.registry import all_methods, get_method
from jobs.spec import RunSpec
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import Membership, Role, User
from webapp.core.formats import THIN
from webapp.runs.models import Record, Run
from webapp.runs.states import State
from webapp.runs.words import FIELDS


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


def of(bench: Bench, name: str, client: Client) -> Client:
    """The same browser, signed in as a new member of Alice's team."""
    person = User.objects.create_user(username=name)
    Membership.objects.create(team=bench.team, user=person, role=Role.VIEWER)
    client.force_login(person)
    return client


def list_url(bench: Bench, **query: str) -> str:
    return reverse("runs:list", args=[bench.team.slug], query=query)


def form_data(bench: Bench, **changes: Any) -> dict[str, Any]:
    """What a browser sends that left every field as it was."""
    from webapp.runs.forms import RunForm

    form = RunForm(bench.team)
    values = {name: form[name].value() for name in form.fields}
    values |= {"dataset_version": str(bench.version.id), "base_model": str(bench.base_model.id)}
    return {name: value for name, value in {**values, **changes}.items() if value is not None and value is not False}


# -- the form ----------------------------------------------------------------------------------------------------------


def test_the_form_shows_every_method_with_its_settings(alice: Client, bench: Bench) -> None:
    page = alice.get(reverse("runs:whole", args=["alice"])).text
    for method in all_methods():
        assert method.name in page
        for setting in method.settings:
            assert f'name="settings_{method.id}_{setting.name}"' in page


def test_the_form_launches_with_its_defaults(alice: Client, bench: Bench) -> None:
    answer = alice.post(reverse("runs:whole", args=["alice"]), form_data(bench, name="mine"))
    run = Run.objects.get()
    assert answer.status_code == 302
    assert answer["Location"] == reverse("runs:detail", args=[run.id])
    assert (run.name, run.method, run.state, run.created_by) == ("mine", "lora", State.QUEUED, bench.user)
    assert run.spec["training"]["epochs"] == 3.0
    assert run.spec["method"] == {"id": "lora", "settings": get_method("lora").resolve({}), "adapters": []}
    assert (run.spec["export"]["merge"], run.spec["export"]["dtype"]) == ("original", "base")
    assert run.spec["evaluation"]["generate"] is True


def test_the_dtype_of_the_download_is_chosen_in_the_form(alice: Client, bench: Bench) -> None:
    page = alice.get(reverse("runs:whole", args=["alice"])).text
    assert page.index('name="export_merge"') < page.index('name="export_dtype"')
    assert "half the size" in page
    assert "twice the size" in page
    alice.post(reverse("runs:whole", args=["alice"]), form_data(bench, method="full", export_dtype="float32"))
    run = Run.objects.get()
    assert run.spec["export"]["dtype"] == "float32"
    form = alice.get(reverse("runs:whole", args=["alice"], query={"clone": str(run.id)})).context["form"]
    assert form["export_dtype"].value() == "float32"


def test_what_steers_the_training_is_chosen_in_the_form(alice: Client, bench: Bench) -> None:
    chosen = {
        "optimiser": "adamw_8bit", "schedule": "cosine_with_restarts", "schedule_cycles": 3, "micro_batch_tokens": 4096,
        "early_stopping_evaluations": 2, "final_weights": "best", "precision": "bfloat16",
    }  # fmt: skip
    page = alice.get(reverse("runs:whole", args=["alice"]))
    assert all(f'name="training_{name}"' in page.text for name in chosen)
    values = {name: page.context["form"][f"training_{name}"].value() for name in chosen}
    defaults = RunSpec.from_json({"model": {"path": "model"}, "data": {"train": "train.jsonl"}}).to_json()["training"]
    assert values == {name: defaults[name] for name in chosen}
    alice.post(
        reverse("runs:whole", args=["alice"]), form_data(bench, **{f"training_{name}": str(value) for name, value in chosen.items()})
    )
    run = Run.objects.get()
    assert {name: run.spec["training"][name] for name in chosen} == chosen
    form = alice.get(reverse("runs:whole", args=["alice"], query={"clone": str(run.id)})).context["form"]
    assert {name: form[f"training_{name}"].value() for name in chosen} == chosen


def test_the_forms_words_name_every_choice_of_the_contract(alice: Client, bench: Bench) -> None:
    form = alice.get(reverse("runs:whole", args=["alice"])).context["form"]
    for name in ("optimiser", "schedule", "precision", "final_weights"):
        words = next(words for words in FIELDS if words.path == f"training.{name}")
        assert list(words.choices) == [value for value, _ in form.fields[f"training_{name}"].choices]


def test_only_the_chosen_methods_settings_count(alice: Client, bench: Bench) -> None:
    data = form_data(bench, method="qlora", settings_lora_rank="nonsense", settings_qlora_rank="8")
    assert alice.post(reverse("runs:whole", args=["alice"]), data).status_code == 302
    assert Run.objects.get().spec["method"]["settings"]["rank"] == 8


def test_ranks_of_single_layers_are_lines_and_come_back_as_they_were_typed(alice: Client, bench: Bench) -> None:
    page = alice.get(reverse("runs:whole", args=["alice"])).text
    assert '<textarea name="settings_lora_rank_pattern"' in page
    lines = "model.layers.0.self_attn.q_proj: 8\r\n\r\ndown_proj: 32\r\n"
    alice.post(reverse("runs:whole", args=["alice"]), form_data(bench, settings_lora_rank_pattern=lines))
    run = Run.objects.get()
    assert run.spec["method"]["settings"]["rank_pattern"] == "model.layers.0.self_attn.q_proj: 8\ndown_proj: 32"
    form = alice.get(reverse("runs:whole", args=["alice"], query={"clone": str(run.id)})).context["form"]
    assert form["settings_lora_rank_pattern"].value() == run.spec["method"]["settings"]["rank_pattern"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"training_epochs": "0"}, "training_epochs"),
        ({"settings_lora_rank": "5000"}, "settings_lora_rank"),
        ({"settings_lora_rank_pattern": "q_proj: 8\nk_proj 8"}, "settings_lora_rank_pattern"),
        ({"training_micro_batch": ""}, "training_micro_batch"),
        ({"seed": "-1"}, "seed"),
        ({"training_schedule_cycles": "0"}, "training_schedule_cycles"),
        ({"training_micro_batch_tokens": "8"}, "training_micro_batch_tokens"),
        ({"training_final_weights": "best", "data_validation_share": "0"}, "training_final_weights"),
    ],
)
def test_an_error_stands_at_its_field_and_nothing_is_launched(alice: Client, bench: Bench, changes: dict[str, str], field: str) -> None:
    answer = alice.post(reverse("runs:whole", args=["alice"]), {**form_data(bench), **changes})
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert f'id="id_{field}_error"' in answer.text
    assert not Run.objects.exists()


def test_a_dataset_of_another_team_cannot_be_chosen(alice: Client, bench: Bench) -> None:
    theirs = make_bench("charlie")
    answer = alice.post(reverse("runs:whole", args=["alice"]), form_data(bench, dataset_version=str(theirs.version.id)))
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == ["dataset_version"]


def test_a_clone_starts_from_the_settings_of_its_run(alice: Client, bench: Bench) -> None:
    run = bench.launch(method="qlora", settings={"rank": 4}, training={"epochs": 1.5, "learning_rate": 3e-4}, seed=7)
    form = alice.get(reverse("runs:whole", args=["alice"], query={"clone": str(run.id)})).context["form"]
    assert (form["method"].value(), form["settings_qlora_rank"].value(), form["seed"].value()) == ("qlora", 4, 7)
    assert (form["training_epochs"].value(), form["training_learning_rate"].value()) == (1.5, 3e-4)


@pytest.mark.parametrize("clone", ["nonsense", "theirs"])
def test_nothing_of_another_team_can_be_cloned(alice: Client, bench: Bench, clone: str) -> None:
    if clone == "theirs":
        clone = str(make_bench("charlie").launch().id)
    assert alice.get(reverse("runs:whole", args=["alice"], query={"clone": clone})).status_code == 404


def test_a_viewer_cannot_launch(bench: Bench, client: Client) -> None:
    vera = of(bench, "vera", client)
    assert vera.get(reverse("runs:whole", args=["alice"])).status_code == 403
    assert vera.post(reverse("runs:whole", args=["alice"]), form_data(bench)).status_code == 403
    assert not Run.objects.exists()


# -- one run -----------------------------------------------------------------------------------------------------------


def test_a_finished_run_shows_results_samples_and_downloads(alice: Client, bench: Bench) -> None:
    run = stories.finished(bench.launch(), 20)
    page = alice.get(reverse("runs:detail", args=[run.id])).text
    for words in ("Base model", "Tuned (what was trained)", "Merged into the 16-bit weights", f"95.0{THIN}%", "Label accuracy"):
        assert words in page, words
    assert "Could you tell me" in page
    for artifact in run.artifacts.all():
        assert reverse("artifacts:download", args=[artifact.id]) in page
        assert artifact.sha256 in page
    assert "3.1e-5" in page
    assert "the original 16-bit weights" in page
    assert reverse("runs:pause", args=[run.id]) not in page


def test_a_full_model_that_was_rounded_is_a_row_of_its_own(alice: Client, bench: Bench) -> None:
    run = bench.launch(method="full", settings={})
    story = stories.Story(run, total_steps=20).begin().steps(1, 20)
    story.measure("base", 3.1, 0.1).measure("tuned", 0.12, 0.95).measure("stored", 0.54, 0.7).tell(State.SUCCEEDED)
    stories.publish(run, "model", "tickets-model.zip", {"stored_dtype": "bfloat16", "mean_kl": 0.42, "dtype": "float32", "loss": 0.54})
    context = alice.get(reverse("runs:detail", args=[run.id])).context
    assert [(result.label, result.values[0]) for result in context["results"]] == [
        ("Base model", "3.100"), ("Tuned (what was trained)", "0.120"), ("Full model as stored, rounded to 16 bits", "0.540"),
    ]  # fmt: skip
    (artifact,) = context["artifacts"]
    assert dict(artifact["facts"]).items() >= {("Weights stored in", "bfloat16"), ("Compared in", "float32"), ("Loss", "0.540")}


def test_a_failed_run_says_why_where_and_what_to_do(alice: Client, bench: Bench) -> None:
    run = stories.failed(bench.launch())
    page = alice.get(reverse("runs:detail", args=[run.id])).text
    assert run.message in page
    assert run.remedy in page
    assert "field training.learning_rate" in page
    assert f"checkpoint of step {run.last_checkpoint_step}" in page
    assert reverse("runs:retry", args=[run.id]) in page


def test_what_a_user_wrote_is_text(alice: Client, bench: Bench) -> None:
    run = bench.launch(name="<script>alert(1)</script>")
    story = stories.Story(run).begin()
    story.emit("log", level="info", message="<img src=x onerror=alert(1)>")
    story.emit("sample", step=1, model="base", index=0, prompt="<b>p</b>", answer="</script><b>", expected="<i>", correct=False)
    story.tell(State.RUNNING)
    page = alice.get(reverse("runs:detail", args=[run.id])).text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "<b>" not in page


@pytest.mark.parametrize("name", ["header", "evaluation", "samples", "log", "artifacts", "history"])
def test_each_part_is_served_as_the_page_holds_it(alice: Client, bench: Bench, name: str) -> None:
    run = stories.finished(bench.launch(), 20)
    part = alice.get(reverse("runs:part", args=[run.id, name]))
    assert part.status_code == 200
    assert "<html" not in part.text
    mark = f'id="{"run-header" if name == "header" else name}"'
    assert mark in part.text
    assert mark in alice.get(reverse("runs:detail", args=[run.id])).text


def test_there_is_no_other_part(alice: Client, bench: Bench) -> None:
    assert alice.get(reverse("runs:part", args=[bench.launch().id, "nonsense"])).status_code == 404


def test_the_curves_are_json_and_bad_numbers_are_refused(alice: Client, bench: Bench) -> None:
    run = stories.finished(bench.launch(), 20)
    body = json.loads(alice.get(reverse("runs:series", args=[run.id])).content)
    assert body["points"] == 20
    assert len(body["series"]["loss"]["mean"]) == 20
    for query in ({"x": "nonsense"}, {"start": "a"}, {"smoothing": "1"}, {"buckets": "0"}, {"smoothing": "nan"}):
        assert alice.get(reverse("runs:series", args=[run.id], query=query)).status_code == 400, query


def test_the_actions_reach_the_services(alice: Client, bench: Bench) -> None:
    run = bench.launch()
    for name, state in (("pause", State.PAUSED), ("resume", State.QUEUED), ("cancel", State.CANCELLED), ("retry", State.QUEUED)):
        answer = alice.post(reverse(f"runs:{name}", args=[run.id]))
        assert answer["Location"] == reverse("runs:detail", args=[run.id])
        run.refresh_from_db()
        assert run.state == state, name


def test_an_action_that_does_not_fit_is_said(alice: Client, bench: Bench) -> None:
    run = stories.finished(bench.launch(), 20)
    page = alice.post(reverse("runs:pause", args=[run.id]), follow=True).text
    assert "Pausing" in page
    run.refresh_from_db()
    assert run.state == State.SUCCEEDED


def test_deleting_asks_for_the_name(alice: Client, bench: Bench) -> None:
    run = stories.finished(bench.launch(name="tickets"), 20)
    alice.post(reverse("runs:delete", args=[run.id]), {"confirm": "something"})
    assert Run.objects.filter(pk=run.pk).exists()
    answer = alice.post(reverse("runs:delete", args=[run.id]), {"confirm": "tickets"})
    assert answer["Location"] == list_url(bench)
    assert not Run.objects.filter(pk=run.pk).exists()


def test_a_viewer_sees_the_page_but_no_button(bench: Bench, client: Client) -> None:
    run = stories.running(bench.launch())
    vera = of(bench, "vera", client)
    page = vera.get(reverse("runs:detail", args=[run.id])).text
    assert reverse("runs:pause", args=[run.id]) not in page
    assert "clone=" not in page
    for name in ("pause", "resume", "cancel", "retry", "delete"):
        assert vera.post(reverse(f"runs:{name}", args=[run.id])).status_code == 403
    run.refresh_from_db()
    assert (run.state, run.desired) == (State.RUNNING, "run")


def test_a_method_that_does_not_fit_is_refused_with_its_reason(bench: Bench, alice: Client) -> None:
    bench.base_model.facts = {**bench.base_model.facts, "has_biases": False}
    bench.base_model.save()
    page = alice.get(reverse("runs:whole", args=[bench.team.slug])).content.decode()
    assert "Does not fit: it trains the model" in page
    answer = alice.post(reverse("runs:whole", args=[bench.team.slug]), form_data(bench, method="bitfit"))
    assert answer.status_code == 422
    assert "it trains the model&#x27;s biases" in answer.content.decode()
    assert not Run.objects.exists()


def test_adapters_to_build_on_are_of_the_team_and_of_the_base(bench: Bench) -> None:
    run = stories.finished(bench.launch())
    with pytest.raises(UserError) as few:
        bench.launch(method="adapter_fusion", adapters=[run])
    assert few.value.code == "adapters_needed"
    with pytest.raises(UserError) as unfit:
        bench.launch(method="adapter_fusion", adapters=[run, stories.finished(bench.launch())])
    assert unfit.value.code == "adapter_unfit"


def test_what_two_runs_of_block_sparse_have_in_common(bench: Bench, alice: Client) -> None:
    runs = [stories.finished(bench.launch(method="block_sparse", name=name)) for name in ("one", "two")]
    for run, positions in zip(runs, ([0, 1, 2], [1, 2, 3]), strict=True):
        module = {"layer": 0, "module": "q_proj", "n": 2, "m": 3, "k": 3, "mean": 0.5, "replaced": 0.25, "positions": positions}
        data = {"step": 4, "name": "block_scores", "modules": [{**module, "scores": [3.0, 2.0, 1.0]}]}
        Record.objects.create(run=run, attempt=1, seq=100_000, kind="method", step=4, at=0.0, data=data)
    page = alice.get(reverse("runs:detail", args=[runs[0].id])).content.decode()
    assert "0.500" in page
    assert ">two</option>" in page
    assert alice.get(reverse("runs:blocks", args=[runs[0].id])).json()["events"][0]["modules"][0]["positions"] == [0, 1, 2]
    answer = alice.get(reverse("runs:overlap", args=[runs[0].id]), {"with": str(runs[1].id)})
    found = answer.context["overlap"]
    assert (found.share, found.chance, found.conflicts) == (pytest.approx(2 / 3), pytest.approx(1 / 2), pytest.approx(1 / 2))
