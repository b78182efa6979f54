"""Base models: from a hub served on loopback by the real client in the real box, and from a folder of the host."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from jobs.errors import UserError
from jobs.models.origin import Origin, write_origin
from tests.jobs.models.hub import Hub, serve
from tests.tiny import make_tiny_model
from tests.tiny_architectures import Architecture, make_tiny_architecture
from tests.webapp.cast import Cast
from webapp.catalog.models import BaseModel
from webapp.catalog.services.add_from_hub import add_from_hub
from webapp.catalog.services.adding import try_again
from webapp.catalog.services.fetch import fetch
from webapp.catalog.services.reconcile import reconcile
from webapp.catalog.services.register_sample import register_sample
from webapp.core.locks import alone
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage

NAME = "acme/tiny"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny") / "repository")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@pytest.fixture
def hub(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with serve(Hub({NAME: tiny})) as hub:
        monkeypatch.setattr(ENV, "hub_endpoint", hub.url)
        yield hub


def add(cast: Cast, repository: str = NAME, revision: str = "") -> BaseModel:
    filled = {"repository": repository, "revision": revision}
    answer = cast.client(cast.bob).post(reverse("catalog:add", args=["night", "hub"]), filled)
    assert answer.status_code == 302
    return BaseModel.objects.get(repository=repository)


def page(cast: Cast, model: BaseModel) -> str:
    return cast.client(cast.vera).get(reverse("catalog:detail", args=[model.pk])).content.decode()


def test_a_model_of_the_hub_is_announced_fetched_and_offered(cast: Cast, hub: Hub, tiny: Path) -> None:
    model = add(cast)
    assert (model.state, model.team, model.created_by) == ("fetching", cast.team, cast.bob)
    assert [(ring.task, ring.subject) for ring in OutboxMessage.objects.all()] == [("catalog.fetch", model.pk)]
    assert 'hx-trigger="every 2s"' in page(cast, model)
    fetch(model.pk)
    model.refresh_from_db()
    assert (model.state, model.revision, model.licence, model.message) == ("ready", hub.commit(NAME), "apache-2.0", "")
    assert (model.facts["architecture"], model.facts["layers"], model.facts["hidden_size"]) == ("LlamaForCausalLM", 2, 64)
    assert (model.folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert not model.folder.with_suffix(".part").exists()
    assert hub.commit(NAME) in page(cast, model)
    fetch(model.pk)
    assert BaseModel.objects.get().folder.is_dir()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("bert", "Classification, Rating, Finding answers, Multiple choice"),
        ("roberta", "Classification, Rating, Finding answers, Multiple choice"),
        ("t5", "Text to text"),
        ("llama", "Writing, Classification, Rating"),
    ],
)
def test_models_of_other_tasks_are_fetched_and_say_what_they_serve(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Architecture, names: str
) -> None:
    folder = make_tiny_architecture(tmp_path / "repository", kind)
    with serve(Hub({NAME: folder})) as hub:
        monkeypatch.setattr(ENV, "hub_endpoint", hub.url)
        model = add(cast)
        fetch(model.pk)
    model.refresh_from_db()
    assert (model.state, model.message) == ("ready", "")
    assert f"<dd>{names}</dd>" in page(cast, model)
    assert names in cast.client(cast.vera).get(reverse("catalog:list", args=["night"])).content.decode()
    assert cast.client(cast.charlie).get(reverse("catalog:detail", args=[model.pk])).status_code == 404


def test_progress_is_written_while_it_comes(cast: Cast, hub: Hub) -> None:
    model = add(cast)
    fetch(model.pk)
    model.refresh_from_db()
    assert model.progress["name"] == "downloading"
    assert model.progress["total"] > 0


def test_a_failure_is_told_and_can_be_tried_again(cast: Cast, hub: Hub) -> None:
    model = add(cast, "acme/nothing")
    fetch(model.pk)
    model.refresh_from_db()
    assert model.state == "failed"
    assert "there is no model" in model.message
    assert str(model.folder.parent) not in model.message
    assert not model.folder.exists()
    assert "there is no model" in page(cast, model)
    cast.client(cast.bob).post(reverse("catalog:retry", args=[model.pk]))
    model.refresh_from_db()
    assert (model.state, OutboxMessage.objects.count()) == ("fetching", 2)
    assert not try_again(model)
    assert OutboxMessage.objects.count() == 2


@pytest.mark.parametrize(
    ("repository", "revision"),
    [("../../etc", ""), ("-h", ""), ("a/b/c", ""), ("http://x/y", ""), ("a b", ""), (NAME, "--out"), (NAME, "../x"), (NAME, "a b")],
)
def test_what_is_no_name_goes_nowhere(cast: Cast, repository: str, revision: str) -> None:
    with pytest.raises(UserError) as refused:
        add_from_hub(team=cast.team, user=cast.bob, repository=repository, revision=revision)
    assert refused.value.code == "hub_name"
    answer = cast.client(cast.bob).post(reverse("catalog:add", args=["night", "hub"]), {"repository": repository, "revision": revision})
    assert answer.status_code == 422
    assert not BaseModel.objects.exists()
    assert not OutboxMessage.objects.exists()


@pytest.mark.parametrize("repository", ["stranger/tiny", "tiny", "acme-evil/tiny", "stranger/acme"])
def test_owners_that_the_administrator_does_not_name(cast: Cast, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "hub_owners", "Acme, other")
    filled = {"repository": repository, "revision": ""}
    answer = cast.client(cast.bob).post(reverse("catalog:add", args=["night", "hub"]), filled)
    assert answer.status_code == 422
    assert "models of Acme, other alone" in answer.content.decode()
    assert not BaseModel.objects.exists()
    model = add(cast)
    monkeypatch.setattr(ENV, "hub_owners", "other")
    fetch(model.pk)
    model.refresh_from_db()
    assert (model.state, "Acme" in model.message, "acme/tiny is not taken" in model.message) == ("failed", False, True)


def test_the_same_model_twice(cast: Cast) -> None:
    add(cast)
    answer = cast.client(cast.bob).post(reverse("catalog:add", args=["night", "hub"]), {"repository": NAME, "revision": ""})
    assert answer.context["form"].errors.keys() == {"repository"}
    assert BaseModel.objects.count() == 1


def test_a_second_copy_of_the_task_does_nothing(cast: Cast, hub: Hub) -> None:
    model = add(cast)
    with alone(model.folder.with_suffix(".lock")):
        fetch(model.pk)
    assert hub.requests == []
    assert BaseModel.objects.get().state == "fetching"


def test_a_lost_doorbell_rings_again(cast: Cast) -> None:
    model = add(cast)
    reconcile()
    assert OutboxMessage.objects.count() == 1
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(minutes=5))
    reconcile()
    reconcile()
    assert OutboxMessage.objects.filter(subject=model.pk).count() == 2


# -- the sample ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sample(tiny: Path) -> Path:
    write_origin(tiny, Origin("Tiny", "1" * 64, "Apache-2.0", "made here"))
    return tiny


def test_a_folder_of_the_host_is_offered_to_every_team_once(cast: Cast, sample: Path) -> None:
    model = register_sample(sample)
    assert register_sample(sample) == model
    assert (model.team, model.state, model.licence, model.revision) == (None, "ready", "Apache-2.0", "1" * 64)
    assert model.facts["parameters"] > 0
    assert "box" not in model.facts
    assert sorted(path.name for path in model.folder.iterdir()) == sorted(path.name for path in sample.iterdir())
    for person, team in ((cast.vera, "night"), (cast.charlie, "others")):
        client = cast.client(person)
        assert "Tiny" in client.get(reverse("catalog:list", args=[team])).content.decode()
        assert client.get(reverse("catalog:detail", args=[model.pk])).status_code == 200
        assert client.post(reverse("catalog:retry", args=[model.pk])).status_code == 404
    assert cast.client(cast.ada).get(reverse("catalog:detail", args=[model.pk])).status_code == 404


def test_a_sample_whose_folder_was_lost_comes_back_under_its_row(cast: Cast, sample: Path) -> None:
    model = register_sample(sample)
    model.folder.rename(model.folder.with_name("lost"))
    assert register_sample(sample).pk == model.pk
    assert (model.folder / "config.json").is_file()


def test_a_folder_that_is_no_model(cast: Cast, sample: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as missing:
        register_sample(tmp_path)
    assert missing.value.code == "model_missing"
    for path in sample.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((sample / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Evil"}}))
    with pytest.raises(UserError) as unusable:
        register_sample(tmp_path)
    assert unusable.value.code == "model_unusable"
    assert not BaseModel.objects.exists()
