"""What comes of what, from whichever end it is looked at."""

from __future__ import annotations

import pytest
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from tests.webapp.artifacts.things import make_artifact, make_base, make_run, make_version
from tests.webapp.cast import Cast
from webapp.artifacts.services.lineage import MOST_RUNS, Node, lineage, size
from webapp.catalog.models import BaseModel
from webapp.runs.models import Artifact, Run


def words(node: Node) -> list[object]:
    """A tree as nested lists: the names, the one that is looked at in capitals."""
    name = node.name.upper() if node.focus else node.name
    return [name, *(words(child) for child in node.children)]


def find(node: Node, name: str) -> Node:
    found = [node] if node.name == name else [find(child, name) for child in node.children if name in str(words(child))]
    return found[0]


@pytest.fixture
def grown(cast: Cast) -> dict[str, BaseModel | Run | Artifact]:
    """base -> first -> adapter, merged -> model -> second -> its adapter; first and other -> combined."""
    version, base = make_version(cast), make_base(cast, "base")
    first, other = make_run(cast, "first", base, version), make_run(cast, "other", base, version)
    adapter, merged = make_artifact(first, "adapter"), make_artifact(first, "merged")
    make_artifact(other, "adapter")
    origin = {
        "run": str(first.pk), "run_name": "first", "artifact": str(merged.pk), "artifact_name": merged.name, "base": str(base.pk),
        "base_name": "base",
    }  # fmt: skip
    model = make_base(cast, "model", source="run", origin=origin)
    second = make_run(cast, "second", model, version)
    parts = [{"path": str(run.pk), "name": run.name, "weight": 1.0} for run in (first, other)]
    combined = make_run(cast, "combined", base, version, kind="compose", spec={"adapters": parts})
    return {
        "base": base, "first": first, "other": other, "adapter": adapter, "merged": merged, "model": model, "second": second,
        "combined": combined,
    }  # fmt: skip


def test_from_an_artifact_up_to_the_base_and_down_to_what_was_made(cast: Cast, grown: dict[str, Artifact]) -> None:
    tree = lineage(cast.team, grown["merged"])
    assert words(tree) == ["base", ["first", ["FIRST-MERGED.ZIP", ["model", ["second"]]]]]
    assert [beside.name for beside in find(tree, "first").beside] == ["Tickets@1"]


def test_from_a_run_at_the_end_up_to_the_first_base(cast: Cast, grown: dict[str, Run]) -> None:
    assert words(lineage(cast.team, grown["second"])) == ["base", ["first", ["first-merged.zip", ["model", ["SECOND"]]]]]


def test_adapters_lead_to_what_combines_them(cast: Cast, grown: dict[str, Artifact]) -> None:
    tree = lineage(cast.team, grown["adapter"])
    assert words(tree) == ["base", ["first", ["FIRST-ADAPTER.ZIP", ["combined"]]]]
    assert [beside.name for beside in find(tree, "combined").beside] == ["Tickets@1", "other"]


def test_from_the_base_everything(cast: Cast, grown: dict[str, BaseModel]) -> None:
    tree = lineage(cast.team, grown["base"])
    assert words(tree) == [
        "BASE",
        ["combined"],
        ["other", ["other-adapter.zip"]],
        ["first", ["first-adapter.zip"], ["first-merged.zip", ["model", ["second"]]]],
    ]
    assert size(tree) == 9


def test_from_a_dataset_version(cast: Cast, grown: dict[str, Run]) -> None:
    tree = lineage(cast.team, grown["second"].dataset_version)
    assert tree.name == "Tickets@1"
    assert [child.name for child in tree.children] == ["combined", "second", "other", "first"]
    assert [beside.name for beside in find(tree, "second").beside] == ["model"]


def test_what_was_deleted_keeps_its_name(cast: Cast, grown: dict[str, Artifact]) -> None:
    grown["merged"].delete()
    model = BaseModel.objects.get(name="model")
    tree = lineage(cast.team, model)
    assert words(tree) == ["base", ["first", ["first-merged.zip", ["MODEL", ["second"]]]]]
    assert find(tree, "first-merged.zip").row is None
    Run.objects.filter(pk__in=[grown["first"].pk, grown["other"].pk, grown["combined"].pk]).delete()
    BaseModel.objects.filter(name="base").delete()
    tree = lineage(cast.team, model)
    assert words(tree) == ["base", ["first", ["first-merged.zip", ["MODEL", ["second"]]]]]
    assert tree.row is None
    page = cast.client(cast.vera).get(reverse("catalog:detail", args=[model.pk])).content.decode()
    assert page.count("deleted</span>") == 3


def test_nothing_of_another_team_is_in_it(cast: Cast, grown: dict[str, BaseModel]) -> None:
    BaseModel.objects.filter(name="base").update(team=None)
    base = BaseModel.objects.get(name="base")
    assert words(lineage(cast.other_team, base)) == ["BASE"]
    assert "Nothing has been made of it yet." in cast.client(cast.charlie).get(reverse("catalog:detail", args=[base.pk])).content.decode()


def test_many_runs_are_counted_not_shown_and_cost_no_more_queries(
    cast: Cast, grown: dict[str, BaseModel], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    base, version = grown["base"], grown["first"].dataset_version
    for number in range(2 * MOST_RUNS):
        make_artifact(make_run(cast, f"more-{number}", base, version), "adapter")
    with django_assert_max_num_queries(16):
        tree = lineage(cast.team, base)
    assert (len(tree.children), tree.more) == (MOST_RUNS, 3 + MOST_RUNS)
