"""Graft's own resources under /v1: what they say, and that another team's are not there."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.webapp.api.given import Program, program
from tests.webapp.test_every_url import Things, make_things
from webapp.api.naming import name_of_run
from webapp.catalog.models import BaseModel
from webapp.runs.models import Artifact, Run, Worker


@pytest.fixture
def things(cast: Any) -> Things:
    return make_things(cast)


@pytest.fixture
def vera(things: Things) -> Program:
    return program(things.cast.team, things.cast.vera)


@pytest.fixture
def charlie(things: Things) -> Program:
    return program(things.cast.other_team, things.cast.charlie)


def test_artifacts_are_listed_and_come_by_range(things: Things, vera: Program) -> None:
    artifact = Artifact.objects.select_related("run__base_model", "run__team").get()
    (found,) = vera.get("artifacts").json()["data"]
    assert found == {
        "id": f"artifact-{artifact.pk.hex}", "object": "artifact", "created_at": int(artifact.created_at.timestamp()), "kind": "adapter",
        "name": "first.zip", "bytes": 10, "sha256": "1" * 64, "run": str(things.run.pk), "model": name_of_run(artifact.run),
        "files": [{"name": "a.json", "bytes": 4, "sha256": "2" * 64}],
    }  # fmt: skip
    assert vera.get(f"artifacts/{found['id']}").json() == found
    assert vera.get("artifacts", run=str(things.run.pk)).json()["data"] == [found]
    assert vera.get("artifacts", run=str(uuid4())).json()["data"] == []
    whole = vera.ask("GET", f"artifacts/{found['id']}/content")
    assert (whole.status_code, b"".join(whole)) == (200, b"0123456789")
    part = vera.ask("GET", f"artifacts/{found['id']}/content", Range="bytes=3-5")
    assert (part.status_code, part["Content-Range"], b"".join(part)) == (206, "bytes 3-5/10", b"345")
    behind = vera.ask("GET", f"artifacts/{found['id']}/content", Range="bytes=20-")
    assert (behind.status_code, behind["Content-Range"]) == (416, "bytes */10")


def test_datasets_models_workers_and_comparisons(things: Things, vera: Program) -> None:
    (dataset,) = vera.get("datasets").json()["data"]
    assert (dataset["id"], dataset["name"]) == (f"dataset-{things.values['dataset'].hex}", "Tickets")
    assert [(version["number"], version["state"], version["rows"]["train"]) for version in dataset["versions"]] == [(1, "ready", 3)]
    assert vera.get(f"datasets/{dataset['id']}").json() == dataset
    (base,) = vera.get("base_models").json()["data"]
    assert (base["model"], base["state"], base["repository"]) == ("a/tiny", "ready", "a/tiny")
    assert vera.get(f"base_models/{base['id']}").json() == base
    Run.objects.update(state="running")
    Worker.objects.update(run=things.run)
    (worker,) = vera.get("workers").json()["data"]
    assert (worker["name"], worker["run"]) == ("train0@host", str(things.run.pk))
    compared = vera.get("comparisons", run=[str(things.run.pk), str(uuid4())]).json()
    assert ([each["run"] for each in compared["data"]], compared["missing"]) == ([str(things.run.pk)], 1)
    many = vera.get("comparisons", run=[str(uuid4()) for _ in range(51)])
    assert (many.status_code, many.json()["error"]["param"]) == (400, "run")


def test_another_teams_things_are_not_there(things: Things, charlie: Program) -> None:
    artifact = Artifact.objects.get()
    for path in ("artifacts", "datasets", "base_models", "files", "fine_tuning/jobs", "models"):
        assert charlie.get(path).json()["data"] == [], path
    for path in (
        f"artifacts/artifact-{artifact.pk.hex}", f"artifacts/artifact-{artifact.pk.hex}/content",
        f"datasets/dataset-{things.values['dataset'].hex}", f"base_models/base-{things.values['model'].hex}",
        f"fine_tuning/jobs/ftjob-{things.run.pk.hex}", f"fine_tuning/jobs/ftjob-{things.run.pk.hex}/events", "models/a/tiny",
        f"models/ft:a/tiny:night:first:{things.run.pk.hex}",
    ):  # fmt: skip
        assert charlie.get(path).status_code == 404, path
    assert charlie.get("comparisons", run=[str(things.run.pk)]).json()["missing"] == 1
    Worker.objects.update(run=things.run)
    (worker,) = charlie.get("workers").json()["data"]
    assert (worker["run"], worker["progress"]) == (None, 0.0)
    assert charlie.ask("POST", f"fine_tuning/jobs/ftjob-{things.run.pk.hex}/cancel").status_code == 404


def test_of_two_models_called_alike_each_has_a_name(things: Things, vera: Program) -> None:
    twin = BaseModel.objects.create(name="Tiny", source="hub", repository="a/tiny", state="ready")
    names = [model["id"] for model in vera.get("models").json()["data"] if model["id"].startswith("a/tiny")]
    assert names == ["a/tiny", f"a/tiny@{twin.pk.hex[:8]}"]
    assert [vera.get(f"models/{name}").json()["graft"]["base_model"] for name in names] == [str(things.values["model"]), str(twin.pk)]
