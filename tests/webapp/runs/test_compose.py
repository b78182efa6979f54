"""Combining adapters: the use case with its refusals, the form, the page of a composition. Alice owns, Bob is a member, Vera a viewer of
her team; Charlie is on another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from jobs.composition.combinations import COMBINATIONS
from jobs.composition.spec import CompositionSpec
from jobs.errors import UserError
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import Membership, Role, User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.compose_form import ComposeForm
from webapp.runs.kinds import Kind
from webapp.runs.models import Run, RunEvent
from webapp.runs.services.compose import compose_run
from webapp.runs.services.compositions import rows_to_measure_on
from webapp.runs.services.handed import handed
from webapp.runs.states import State
from webapp.work.models import OutboxMessage


def member(bench: Bench, name: str, role: Role) -> User:
    person = User.objects.create_user(username=name)
    Membership.objects.create(team=bench.team, user=person, role=role)
    return person


@pytest.fixture
def bob(bench: Bench, client: Client) -> Client:
    client.force_login(member(bench, "bob", Role.MEMBER))
    return client


def trained(bench: Bench, name: str, **launch: Any) -> Run:
    """A finished run with its adapter."""
    return stories.finished(bench.launch(name=name, **launch), 3)


def compose(bench: Bench, *runs: Run, weights: tuple[float, ...] = (0.7, 0.3), **changes: Any) -> Run:
    given: dict[str, Any] = {"team": bench.team, "user": bench.user, "name": "both", "combination": "cat", **changes}
    return compose_run(parts=list(zip(runs, weights, strict=False)), **given)


def compositions() -> Any:
    return Run.objects.filter(kind=Kind.COMPOSE)


# -- the use case ------------------------------------------------------------------------------------------------------


def test_a_composition_is_a_run_measured_as_its_first_adapter_was(bench: Bench, tmp_path: Path) -> None:
    first = trained(bench, "tickets", method="qlora", seed=7, validation_share=0.2, training={"max_length": 64, "loss_on": "all"})
    run = compose(bench, first, trained(bench, "letters"), combination="dare_linear_svd", rank=4, density=0.25, seed=3)
    assert (run.kind, run.method, run.state, run.base_model, run.dataset_version) == (
        "compose", "lora", State.QUEUED, bench.base_model, bench.version,
    )  # fmt: skip
    assert list(RunEvent.objects.filter(run=run).values_list("to_state", "actor")) == [("queued", "alice")]
    assert OutboxMessage.objects.filter(subject=run.id).values_list("task", "queue").get() == ("runs.train", "train")
    spec = CompositionSpec.from_json(run.spec)
    assert [(part.name, part.weight) for part in spec.adapters] == [("tickets", 0.7), ("letters", 0.3)]
    assert (spec.combination, spec.rank, spec.density, spec.seed, spec.split_seed) == ("dare_linear_svd", 4, 0.25, 3, 7)
    assert (spec.base_bits, spec.max_length, spec.loss_on, spec.export.merge) == (4, 64, "all", "none")
    assert spec.data is not None
    assert (spec.data.train, spec.data.validation_share) == ("train.jsonl", 0.2)
    assert str(tmp_path) not in str(run.spec)


def test_its_child_is_handed_the_files_of_this_host(bench: Bench) -> None:
    runs = [trained(bench, name) for name in ("tickets", "letters")]
    spec = CompositionSpec.from_json(handed(compose(bench, *runs)))
    assert [part.path for part in spec.adapters] == [str(run.artifacts.get(kind="adapter").file) for run in runs]
    assert all(Path(part.path).is_file() for part in spec.adapters)
    assert spec.data is not None
    assert Path(spec.data.train).is_file()
    assert spec.model.path == str(bench.base_model.folder)


def test_a_composition_is_a_part_of_the_next_with_the_rows_it_held_out(bench: Bench) -> None:
    first = trained(bench, "tickets", seed=7, validation_share=0.2)
    made = stories.composed(compose(bench, first, trained(bench, "letters"), seed=3))
    again = CompositionSpec.from_json(compose(bench, made, first).spec)
    assert [part.path for part in again.adapters] == [str(made.id), str(first.id)]
    assert (again.split_seed, again.data) == (7, CompositionSpec.from_json(made.spec).data)


def test_what_an_adapter_has_seen_is_not_measured_on(bench: Bench) -> None:
    first, second = trained(bench, "tickets", seed=7, validation_share=0.2), trained(bench, "letters")
    data, seed = rows_to_measure_on(bench.version, [first, second])
    assert (data["test"], data["validation_share"], seed) == (None, 0.2, 7)
    other = DatasetVersion.objects.create(
        dataset=bench.version.dataset, number=2, state=DatasetVersion.State.READY, train_upload=bench.version.train_upload,
        created_by=bench.user, manifest={"train": {"file": "train.jsonl"}},
    )  # fmt: skip
    data, seed = rows_to_measure_on(other, [first, second])
    assert (data["train"], data["test"], data["validation_share"], seed) == ("train.jsonl", "train.jsonl", 0.0, None)
    other.manifest["validation"] = {"file": "validation.jsonl"}
    assert rows_to_measure_on(other, [first, second])[0]["test"] is None
    other.save()
    run = compose(bench, first, second, dataset_version=other)
    assert (run.dataset_version, run.spec["data"]["validation"]) == (other, "validation.jsonl")


def _other_base(bench: Bench) -> Run:
    base = BaseModel.objects.create(name="Other", source="sample", state=BaseModel.State.READY, revision="1", licence="MIT")
    return trained(bench, "elsewhere", base_model=base)


SECOND: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "another team's": (lambda _: trained(make_bench("charlie"), "secret"), {}, "adapters", "has left no adapter in this team"),
    "without adapter": (lambda bench: stories.failed(bench.launch(name="hot")), {}, "adapters", "has left no adapter in this team"),
    "of another kind": (lambda bench: trained(bench, "blocks", method="block_sparse"), {}, "adapters", "it is block-sparse"),
    "that does not add up": (lambda bench: trained(bench, "hada", method="loha"), {}, "adapters", "what LoHa trains does not add up"),
    "of another base": (_other_base, {}, "adapters", "its base is Other"),
    "of another rank": (
        lambda bench: trained(bench, "wide", settings={"rank": 32}), {"combination": "ties"}, "combination", "equal ranks",
    ),
    "with an unknown way": (lambda bench: trained(bench, "fine"), {"combination": "magic"}, "combination", "no combination magic"),
    "without a name": (lambda bench: trained(bench, "fine"), {"name": " "}, "name", "name"),
}  # fmt: skip


@pytest.mark.parametrize("case", SECOND)
def test_what_does_not_go_together_is_refused_and_nothing_happens(bench: Bench, case: str) -> None:
    make, changes, field, words = SECOND[case]
    first, second = trained(bench, "first"), make(bench)
    before = OutboxMessage.objects.count()
    with pytest.raises(UserError) as refused:
        compose(bench, first, second, **changes)
    assert refused.value.where["field"] == field
    assert words in refused.value.message
    assert not compositions().exists()
    assert OutboxMessage.objects.count() == before


def test_one_alone_and_blocks_by_another_way_are_refused(bench: Bench) -> None:
    blocks = [trained(bench, name, method="block_sparse") for name in ("one", "two")]
    with pytest.raises(UserError, match="two at least"):
        compose(bench, blocks[0])
    with pytest.raises(UserError, match="it is for low-rank updates"):
        compose(bench, *blocks, combination="svd")
    assert not compositions().exists()
    assert compose(bench, *blocks).method == "block_sparse"


def test_data_of_another_team_is_refused(bench: Bench) -> None:
    runs = [trained(bench, name) for name in ("one", "two")]
    with pytest.raises(UserError) as refused:
        compose(bench, *runs, dataset_version=make_bench("charlie").version)
    assert (refused.value.code, compositions().exists()) == ("dataset_not_ready", False)


# -- the form ----------------------------------------------------------------------------------------------------------


def url(bench: Bench, **query: str) -> str:
    return reverse("runs:combine", args=[bench.team.slug], query=query)


def form_data(bench: Bench, *runs: Run, **changes: Any) -> dict[str, Any]:
    """What a browser sends that left every field but the adapters as it was."""
    form = ComposeForm(bench.team)
    values = {name: form[name].value() for name in form.fields}
    given = {**values, "adapters": [str(run.id) for run in runs], **changes}
    return {name: value for name, value in given.items() if value is not None and value is not False}


def test_the_form_greys_out_what_cannot_be_taken_and_says_why(bob: Client, bench: Bench) -> None:
    first = trained(bench, "first")
    for name, method in (("blocks", "block_sparse"), ("hada", "loha"), ("fine", "rslora")):
        trained(bench, name, method=method)
    _other_base(bench)
    trained(make_bench("charlie"), "secret-project")
    answer = bob.get(url(bench))
    reasons = {each.run.name: each.obstacle for each in answer.context["candidates"]}
    assert reasons == {"first": "", "blocks": "", "fine": "", "elsewhere": "", "hada": "what LoHa trains does not add up"}
    assert "secret-project" not in answer.text
    answer = bob.get(url(bench, **{"with": str(first.id)}))
    reasons = {each.run.name: each.obstacle for each in answer.context["candidates"]}
    assert reasons["blocks"] == "it is block-sparse, the first is low-rank (LoRA)"
    assert (reasons["fine"], reasons["elsewhere"]) == ("", "its base is Other, that of the first is Tiny")
    assert "Cannot be taken: its base is Other, that of the first is Tiny." in answer.text
    for combination in COMBINATIONS.values():
        assert f'value="{combination.id}"' in answer.text
    assert answer.context["form"].rules()["uses"]["dare_ties_svd"] == ["rank", "density", "seed"]


def test_the_form_launches_a_composition(bob: Client, bench: Bench) -> None:
    runs = [trained(bench, name) for name in ("one", "two")]
    weights = {f"weight_{runs[0].id}": "0.25", f"weight_{runs[1].id}": ""}
    answer = bob.post(url(bench), form_data(bench, *runs, combination="svd", rank="6", export_merge="original", **weights))
    run = compositions().get()
    assert answer["Location"] == reverse("runs:detail", args=[run.id])
    assert (run.name, run.created_by.username) == ("two + one", "bob")
    spec = CompositionSpec.from_json(run.spec)
    assert {part.name: part.weight for part in spec.adapters} == {"one": 0.25, "two": 1.0}
    assert (spec.combination, spec.rank, spec.export.merge) == ("svd", 6, "original")
    form = bob.get(url(bench, clone=str(run.id))).context["form"]
    assert set(form["adapters"].value()) == {str(one.id) for one in runs}
    assert (form[f"weight_{runs[0].id}"].value(), form["rank"].value(), form["export_merge"].value()) == (0.25, 6, "original")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"adapters": "first"}, "adapters"),
        ({"adapters": ""}, "adapters"),
        ({"adapters": "nonsense"}, "adapters"),
        ({"combination": "magic"}, "combination"),
        ({"combination": "ties"}, "combination"),
        ({"density": "2"}, "density"),
        ({"density": "0"}, "density"),
        ({"rank": "0"}, "rank"),
        ({"seed": "-1"}, "seed"),
        ({"weight": "1000"}, "weight"),
    ],
)
def test_an_error_stands_at_its_field_and_nothing_is_launched(bob: Client, bench: Bench, changes: dict[str, str], field: str) -> None:
    first, second = trained(bench, "first"), trained(bench, "wide", settings={"rank": 32})
    if "weight" in changes:
        changes = {f"weight_{first.id}": changes["weight"]}
        field = f"weight_{first.id}"
    if changes.get("adapters") == "first":
        changes = {"adapters": str(first.id)}
    answer = bob.post(url(bench), {**form_data(bench, first, second), **changes})
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert f'id="id_{field}_error"' in answer.text
    assert not compositions().exists()


def test_nothing_of_another_team_can_be_combined(bob: Client, bench: Bench) -> None:
    mine, theirs = trained(bench, "mine"), trained(make_bench("charlie"), "theirs")
    answer = bob.post(url(bench), form_data(bench, mine, theirs))
    assert (answer.status_code, list(answer.context["form"].errors)) == (422, ["adapters"])
    assert "theirs" not in answer.text
    assert not compositions().exists()
    for name, value in (("with", str(theirs.id)), ("clone", str(theirs.id)), ("with", "nonsense"), ("clone", str(mine.id))):
        assert bob.get(url(bench, **{name: value})).status_code == 404, name
    assert bob.get(reverse("runs:combine", args=["charlie"])).status_code == 404


def test_who_may_not_launch_may_not_combine(bench: Bench, client: Client) -> None:
    runs = [trained(bench, name) for name in ("one", "two")]
    data = form_data(bench, *runs)
    client.force_login(member(bench, "vera", Role.VIEWER))
    assert (client.get(url(bench)).status_code, client.post(url(bench), data).status_code) == (403, 403)
    client.force_login(make_bench("charlie").user)
    assert (client.get(url(bench)).status_code, client.post(url(bench), data).status_code) == (404, 404)
    assert not compositions().exists()


def test_a_team_without_adapters_is_told_what_to_do(bob: Client, bench: Bench) -> None:
    assert "There is no finished adapter yet" in bob.get(url(bench)).text


# -- its page ----------------------------------------------------------------------------------------------------------


def test_its_page_shows_parts_figures_and_what_was_lost(bob: Client, bench: Bench) -> None:
    runs = [trained(bench, name) for name in ("tickets", "letters")]
    run = stories.composed(compose(bench, *runs, combination="svd"), rank=16, lost=0.0312)
    answer = bob.get(reverse("runs:detail", args=[run.id]))
    for one in runs:
        assert f'<a href="{reverse("runs:detail", args=[one.id])}">{one.name}</a>' in answer.text
    assert [result.label for result in answer.context["results"]] == ["Base model", "tickets", "letters", "Combined"]
    assert [each["label"] for each in answer.context["samples"][0]["answers"]] == ["Base model", "tickets", "letters", "Combined"]
    assert answer.context["made"] == [("Rank", "16"), ("Adapted modules", "210")]
    assert "Lost by cutting to the rank" in answer.text
    assert "3.12" in answer.text
    assert "python -m jobs compose spec.json" in answer.text
    assert "live-chart" not in answer.text
    assert reverse("artifacts:download", args=[run.artifacts.get().id]) in answer.text
    assert f"{url(bench)}?clone={run.id}" in answer.text
    assert bob.get(reverse("runs:part", args=[run.id, "composition"])).text.lstrip().startswith('<section id="composition"')
    assert bob.get(reverse("runs:new", args=["alice"], query={"clone": str(run.id)})).status_code == 404
    row = bob.get(reverse("runs:list", args=["alice"])).context["listing"].rows[0]
    assert (row.run, row.method, row.run.eval_loss) == (run, "LoRA", pytest.approx(0.2))
    assert "Composition: LoRA" in bob.get(reverse("runs:list", args=["alice"])).text


def test_its_page_tells_the_conflicts_of_blocks_and_a_part_that_was_deleted(bob: Client, bench: Bench) -> None:
    runs = [trained(bench, name, method="block_sparse") for name in ("tickets", "letters")]
    run = stories.composed(compose(bench, *runs), blocks=400, conflicts=20, conflict_share=0.05)
    runs[1].delete()
    page = bob.get(reverse("runs:detail", args=[run.id]))
    assert [(part.name, part.weight, part.run) for part in page.context["parts"]] == [("tickets", 0.7, runs[0]), ("letters", 0.3, None)]
    assert (page.context["conflict_share"], page.context["lost"], page.context["composed"].id) == (0.05, None, "cat")
    assert "Blocks in conflict" in page.text
    assert "(deleted)" in page.text


def test_a_run_that_composes_nothing_has_no_such_section(bob: Client, bench: Bench) -> None:
    run = trained(bench, "tickets")
    page = bob.get(reverse("runs:detail", args=[run.id]))
    assert (page.context["composed"], page.context["combines"]) == (None, True)
    assert f"{url(bench)}?with={run.id}" in page.text
    full = trained(bench, "whole", method="full")
    assert f"with={full.id}" not in bob.get(reverse("runs:detail", args=[full.id])).text


def test_a_composition_begins_anew_and_its_page_says_so(bob: Client, bench: Bench) -> None:
    run = compose(bench, *(trained(bench, name) for name in ("one", "two")))
    assert not run.is_resumable
    assert "Gives the device back; it begins anew" in bob.get(reverse("runs:detail", args=[run.id])).text
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING, desired="pause")
    assert "pausing: it will begin anew" in bob.get(reverse("runs:detail", args=[run.id])).text
