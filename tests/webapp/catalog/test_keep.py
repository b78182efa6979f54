"""What a team does with a model: licence, archive, deletion; and models of an older edition, which are described anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.urls import reverse

from jobs.models.inspect import inspect_model
from tests.tiny import make_tiny_model
from tests.webapp.cast import Cast
from tests.webapp.test_every_url import make_things
from webapp.accounts.models import AuditEvent
from webapp.catalog.models import BaseModel
from webapp.catalog.services.describe import EDITION, describe_again
from webapp.catalog.services.reconcile import reconcile
from webapp.work.models import OutboxMessage


@pytest.fixture
def model(cast: Cast) -> BaseModel:
    return BaseModel.objects.create(team=cast.team, name="Mine", source="upload", state="ready", created_by=cast.bob)


def post(cast: Cast, model: BaseModel, what: str, person: str = "bob", **filled: str) -> int:
    answer = cast.client(getattr(cast, person)).post(reverse(f"catalog:{what}", args=[model.pk]), filled)
    model.refresh_from_db()
    return int(answer.status_code)


def names(cast: Cast, query: str = "") -> list[str]:
    page = cast.client(cast.vera).get(reverse("catalog:list", args=["night"]) + query)
    return [row.name for row in page.context["models"]]


def test_the_licence_is_what_the_team_has_read(cast: Cast, model: BaseModel) -> None:
    assert post(cast, model, "licence", licence=" Apache-2.0 ") == 302
    assert model.licence == "Apache-2.0"
    assert post(cast, model, "licence", licence="x" * 81) == 422
    assert post(cast, model, "licence", "vera", licence="MIT") == 403
    assert model.licence == "Apache-2.0"


def test_an_archived_model_leaves_the_lists_and_comes_back(cast: Cast, model: BaseModel) -> None:
    assert (names(cast), names(cast, "?archived")) == (["Mine"], [])
    post(cast, model, "archive")
    assert model.archived_at is not None
    assert (names(cast), names(cast, "?archived")) == ([], ["Mine"])
    page = cast.client(cast.bob).get(reverse("catalog:detail", args=[model.pk])).content.decode()
    assert "Use in a run" not in page
    new_run = cast.client(cast.bob).get(reverse("runs:new", args=["night"])).content.decode()
    assert str(model.pk) not in new_run
    post(cast, model, "archive", undo="1")
    assert (model.archived_at, names(cast)) == (None, ["Mine"])


@pytest.mark.django_db(transaction=True)
def test_a_model_is_deleted_by_its_name_with_its_files(cast: Cast, model: BaseModel) -> None:
    model.folder.mkdir(parents=True)
    (model.folder / "config.json").write_text("{}")
    assert post(cast, model, "delete", confirm="Mine") == 403  # a member's role does not allow it
    assert post(cast, model, "delete", "alice", confirm="mine") == 302
    assert model.folder.is_dir()
    cast.client(cast.alice).post(reverse("catalog:delete", args=[model.pk]), {"confirm": "Mine"})
    assert not BaseModel.objects.exists()
    assert not model.folder.exists()
    assert AuditEvent.objects.get(action="model.deleted").object_name == "Mine"


@pytest.mark.django_db(transaction=True)
def test_a_model_that_runs_stand_on_stays(cast: Cast) -> None:
    model = make_things(cast).run.base_model
    page = cast.client(cast.alice).post(reverse("catalog:delete", args=[model.pk]), {"confirm": model.name}, follow=True)
    assert "runs that start from it: 1" in page.content.decode()
    assert BaseModel.objects.filter(pk=model.pk).exists()
    assert not AuditEvent.objects.filter(action="model.deleted").exists()


def test_a_model_of_the_site_is_nobodys_to_change(cast: Cast) -> None:
    model = BaseModel.objects.create(name="Sample", source="sample", state="ready")
    for what in ("licence", "archive", "delete", "retry"):
        assert post(cast, model, what, "alice", confirm="Sample", licence="MIT") == 404
    assert (model.licence, model.archived_at) == ("", None)


# -- editions ----------------------------------------------------------------------------------------------------------


def test_a_model_of_before_tasks_were_known_is_described_anew(cast: Cast, model: BaseModel) -> None:
    make_tiny_model(model.folder)
    (model.folder / "LICENSE").write_text("MIT License")
    facts = inspect_model(model.folder).to_json()
    del facts["tasks"]
    BaseModel.objects.update(facts=facts)
    reconcile()
    reconcile()
    assert [(ring.task, ring.subject) for ring in OutboxMessage.objects.all()] == [("catalog.describe", model.pk)]
    describe_again(model.pk)
    model.refresh_from_db()
    assert (model.described, model.task_names) == (EDITION, ["Writing", "Classification", "Rating"])
    assert (model.licence, model.description["chat"]["refusal"]) == ("MIT", "")
    assert "Writing, Classification, Rating" in cast.client(cast.vera).get(reverse("catalog:list", args=["night"])).content.decode()
    OutboxMessage.objects.all().delete()
    reconcile()
    assert not OutboxMessage.objects.exists()


def test_where_that_fails_the_model_stays_and_its_page_says_why(cast: Cast, model: BaseModel, tmp_path: Path) -> None:
    BaseModel.objects.update(facts={"architecture": "LlamaForCausalLM", "parameters": 1})
    describe_again(model.pk)
    model.refresh_from_db()
    assert (model.state, model.described) == ("ready", EDITION)
    page = cast.client(cast.vera).get(reverse("catalog:detail", args=[model.pk])).content.decode()
    assert "could not be described" in page
    assert str(model.folder.parent) not in page


def test_a_row_without_facts_is_left_alone(cast: Cast, model: BaseModel) -> None:
    reconcile()
    assert not OutboxMessage.objects.exists()
