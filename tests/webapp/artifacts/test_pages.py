"""Pages of artifacts: the list, one of them, what is done with it; and on which worker a model fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from django.utils.timezone import now
from pytest_django import DjangoAssertNumQueries

from tests.tiny import make_tiny_model
from tests.webapp.artifacts.things import make_artifact, make_base, make_run, make_version
from tests.webapp.cast import Cast
from webapp.accounts.models import AuditEvent
from webapp.artifacts.services.fit import fit_of
from webapp.artifacts.services.loading import ways_of
from webapp.catalog.models import BaseModel
from webapp.catalog.services.fetch import fetch
from webapp.runs.models import Artifact, Run, Worker

PARITY = {"merge_into": "original", "merge_max_difference": 1.5e-6, "top1_agreement": 0.9975}


@pytest.fixture
def run(cast: Cast) -> Run:
    return make_run(cast, "tickets", make_base(cast, facts={"architecture": "LlamaForCausalLM"}), make_version(cast))


@pytest.fixture
def merged(run: Run, tmp_path: Path) -> Artifact:
    source = make_tiny_model(tmp_path / "merged")
    (source / "MANIFEST.txt").write_text("no file of a model")
    return make_artifact(run, "merged", source, **PARITY)


def page(cast: Cast, artifact: Artifact, person: str = "vera") -> str:
    return cast.client(getattr(cast, person)).get(reverse("artifacts:detail", args=[artifact.pk])).content.decode()


def shown(cast: Cast, query: str = "") -> Any:
    answer = cast.client(cast.vera).get(reverse("artifacts:list", args=["night"]) + query)
    assert answer.status_code == 200
    return answer.context["listing"]


def test_the_list_filters_orders_and_sums(cast: Cast, run: Run) -> None:
    other = make_run(cast, "letters", run.base_model, run.dataset_version)
    for owner in (run, other):
        make_artifact(owner, "adapter")
    large = make_artifact(run, "merged")
    Artifact.objects.filter(pk=large.pk).update(bytes=5_000_000)
    AuditEvent.objects.bulk_create(
        AuditEvent(team=cast.team, action="artifact.downloaded", object_type="artifact", object_id=str(large.pk)) for _ in range(3)
    )

    def names(query: str) -> list[str]:
        return [artifact.name for artifact in shown(cast, query).page]

    assert names("?q=letters") == ["letters-adapter.zip"]
    assert names("?kind=merged") == ["tickets-merged.zip"]
    assert names("?order=large")[0] == "tickets-merged.zip"
    assert names("?order=name") == ["letters-adapter.zip", "tickets-adapter.zip", "tickets-merged.zip"]
    assert len(names("?kind=evil&order=evil&page=evil&q=%00")) == 3
    listing = shown(cast, "?kind=merged")
    assert (listing.count, listing.total_bytes, listing.matching_bytes) == (3, 5_000_020, 5_000_000)
    assert listing.downloads == {large.pk: 3}
    assert cast.client(cast.charlie).get(reverse("artifacts:list", args=["night"])).status_code == 404
    assert not list(cast.client(cast.charlie).get(reverse("artifacts:list", args=["others"])).context["listing"].page)


def test_the_list_costs_the_same_for_many(
    cast: Cast, run: Run, django_assert_max_num_queries: DjangoAssertNumQueries, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    client, url = cast.client(cast.vera), reverse("artifacts:list", args=["night"])
    make_artifact(run, "adapter")
    client.get(url)
    with django_assert_max_num_queries(40) as one:
        client.get(url)
    for number in range(30):
        make_artifact(make_run(cast, f"more-{number}", run.base_model, run.dataset_version), "adapter")
    with django_assert_num_queries(len(one)):
        client.get(url)


def test_the_page_tells_parity_files_and_how_to_load_it(cast: Cast, merged: Artifact) -> None:
    text = page(cast, merged)
    assert "99.75" in text
    assert "1.5e-6" in text
    assert merged.sha256 in text
    for number, member in enumerate(merged.files):
        assert reverse("artifacts:file", args=[merged.pk, number]) in text
        assert member["sha256"] in text
    assert "vllm serve ./tickets-merged" in text
    assert "ollama create tickets-merged" in text
    assert "Use as base model" not in text  # a viewer cannot
    assert "Delete this artifact" not in page(cast, merged, "bob")
    assert cast.client(cast.charlie).get(reverse("artifacts:detail", args=[merged.pk])).status_code == 404


def test_the_ways_to_load_an_adapter_name_its_base_and_revision(cast: Cast, run: Run) -> None:
    BaseModel.objects.filter(pk=run.base_model_id).update(revision="a" * 40)
    adapter = make_artifact(run, "adapter")
    adapter.files = [{"name": "adapter_config.json", "bytes": 2, "sha256": "", "offset": 0}]
    adapter.run = Run.objects.select_related("base_model").get(pk=run.pk)
    ways = {way.name: way.text for way in ways_of(adapter)}
    assert list(ways) == ["Unpack", "PEFT", "vLLM"]
    assert f'AutoModelForCausalLM.from_pretrained("a/tiny", revision="{"a" * 40}"' in ways["PEFT"]
    assert "--lora-modules tickets-adapter=./tickets-adapter" in ways["vLLM"]
    compile(ways["PEFT"], "shown", "exec")
    adapter.kind = Artifact.Kind.ANALYSIS
    assert ways_of(adapter) == []


# -- as a base model ---------------------------------------------------------------------------------------------------


def test_a_merged_model_becomes_a_base_model_and_says_where_it_is_from(cast: Cast, merged: Artifact, tmp_path: Path) -> None:
    BaseModel.objects.update(licence="Apache-2.0")
    url = reverse("artifacts:use-as-base", args=[merged.pk])
    assert cast.client(cast.vera).post(url, {"name": "Tickets v1"}).status_code == 403
    answer = cast.client(cast.bob).post(url, {"name": "Tickets v1"})
    model = BaseModel.objects.get(name="Tickets v1")
    assert answer["Location"] == reverse("catalog:detail", args=[model.pk])
    fetch(model.pk)
    model.refresh_from_db()
    assert (model.state, model.message, model.licence, model.source) == ("ready", "", "Apache-2.0", "run")
    assert (model.folder / "model.safetensors").read_bytes() == (tmp_path / "merged/model.safetensors").read_bytes()
    assert not (model.folder / "MANIFEST.txt").exists()
    assert model.facts["architecture"] == "LlamaForCausalLM"
    text = cast.client(cast.vera).get(reverse("catalog:detail", args=[model.pk])).content.decode()
    assert reverse("artifacts:detail", args=[merged.pk]) in text
    again = cast.client(cast.bob).post(url, {"name": "Tickets v1"})
    assert (again.status_code, again.context["form"].errors.keys()) == (422, {"name"})


def test_a_zip_that_was_changed_is_not_taken(cast: Cast, merged: Artifact) -> None:
    cast.client(cast.bob).post(reverse("artifacts:use-as-base", args=[merged.pk]), {"name": "Tickets v1"})
    weights = next(member for member in merged.files if member["name"] == "model.safetensors")
    with merged.file.open("r+b") as file:
        file.seek(weights["offset"] + 1000)
        file.write(b"evil")
    model = BaseModel.objects.get(name="Tickets v1")
    fetch(model.pk)
    model.refresh_from_db()
    assert (model.state, "SHA-256" in model.message) == ("failed", True)
    assert not model.folder.exists()


@pytest.mark.parametrize("kind", ["adapter", "analysis"])
def test_what_is_no_whole_model_is_refused(cast: Cast, run: Run, kind: str) -> None:
    answer = cast.client(cast.bob).post(reverse("artifacts:use-as-base", args=[make_artifact(run, kind).pk]), {"name": "No"})
    assert answer.status_code == 422
    assert not BaseModel.objects.filter(name="No").exists()


# -- deletion ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_an_artifact_is_deleted_by_its_name_with_its_file(cast: Cast, merged: Artifact) -> None:
    url = reverse("artifacts:delete", args=[merged.pk])
    assert cast.client(cast.bob).post(url, {"confirm": merged.name}).status_code == 403
    cast.client(cast.max).post(url, {"confirm": "another"})
    assert merged.file.is_file()
    assert cast.client(cast.max).post(url, {"confirm": merged.name})["Location"] == reverse("artifacts:list", args=["night"])
    assert not Artifact.objects.exists()
    assert not merged.file.exists()
    event = AuditEvent.objects.get(action="artifact.deleted")
    assert (event.object_name, event.actor_name, event.detail) == (merged.name, "max", {"run": "tickets"})
    assert Run.objects.filter(name="tickets").exists()


@pytest.mark.django_db(transaction=True)
def test_an_adapter_that_a_waiting_run_builds_on_stays(cast: Cast, run: Run) -> None:
    adapter = make_artifact(run, "adapter")
    spec = {"adapters": [{"path": str(run.pk), "name": run.name, "weight": 1.0}]}
    waiting = make_run(cast, "combined", run.base_model, run.dataset_version, kind="compose", spec=spec, state="queued")
    url = reverse("artifacts:delete", args=[adapter.pk])
    answer = cast.client(cast.max).post(url, {"confirm": adapter.name}, follow=True)
    assert "combined has not ended and builds on it" in answer.content.decode()
    assert Artifact.objects.filter(pk=adapter.pk).exists()
    Run.objects.filter(pk=waiting.pk).update(state="cancelled")
    cast.client(cast.max).post(url, {"confirm": adapter.name})
    assert not Artifact.objects.exists()


# -- on which worker a model fits --------------------------------------------------------------------------------------


def need(method: str, kind: str, micro_batch: int, size: int | None, refusal: str = "") -> dict[str, Any]:
    return {
        "method": method, "kind": kind, "bfloat16": True, "micro_batch": micro_batch, "row_tokens": 512, "bytes": size, "refusal": refusal
    }  # fmt: skip


NEEDS = [
    *(need("full", kind, micro_batch, 80_000 // divisor) for kind in ("cpu", "cuda") for micro_batch, divisor in ((8, 1), (1, 2))),
    *(need("lora", kind, micro_batch, 9_000 // divisor) for kind in ("cpu", "cuda") for micro_batch, divisor in ((8, 1), (1, 2))),
    need("qlora", "cpu", 8, None, "no"), need("qlora", "cuda", 8, 3_000), need("qlora", "cuda", 1, 2_000),
]  # fmt: skip


def test_what_fits_on_which_worker(cast: Cast) -> None:
    model = make_base(cast, description={"needs": NEEDS})

    def worker(name: str, kind: str, memory: int, **more: Any) -> None:
        device = {"kind": kind, "name": name, "memory_bytes": memory, "bfloat16": True}
        Worker.objects.create(name=name, queue="train", device=device, seen_at=more.get("seen_at", now()))

    general = fit_of(model)
    assert general is not None
    assert [(row.device["kind"], [verdict.bytes for verdict in row.verdicts]) for row in general.rows] == [
        ("cpu", [80_000, 9_000, None]), ("cuda", [80_000, 9_000, 3_000]),
    ]  # fmt: skip
    assert not general.compared
    worker("a", "cpu", 100_000)
    worker("b", "cuda", 5_000)
    worker("gone", "cuda", 10**9, seen_at=now().replace(year=2000))
    table = fit_of(model)
    assert table is not None
    found = {row.name: [(verdict.fits, verdict.bytes, verdict.micro_batch) for verdict in row.verdicts] for row in table.rows}
    assert found == {
        "a": [(True, 80_000, 8), (True, 9_000, 8), (False, None, 8)],
        "b": [(False, 40_000, 1), (True, 4_500, 1), (True, 3_000, 8)],
    }
    text = cast.client(cast.vera).get(reverse("catalog:detail", args=[model.pk])).content.decode()
    assert "micro-batch 1" in text
    assert "not on this device" in text
    assert fit_of(make_base(cast, "other")) is None


def test_the_runs_of_a_model_are_those_of_the_team(cast: Cast, run: Run) -> None:
    text = cast.client(cast.vera).get(reverse("catalog:detail", args=[run.base_model_id])).content.decode()
    assert reverse("runs:detail", args=[run.pk]) in text
