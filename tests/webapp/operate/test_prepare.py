"""`manage.py prepare`: everything once, and nothing twice."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.tiny import tiny_config, tiny_tokenizer
from webapp.accounts.models import Membership, Role, Team, User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.operate.management.commands import prepare
from webapp.runs.models import Run
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A folder as `python -m jobs sample` leaves it, with a tiny model."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "sample"
    AutoModelForCausalLM.from_config(tiny_config()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "graft.json").write_text(json.dumps({"name": "Tiny", "revision": "1", "licence": "Apache-2.0", "source": "a test"}))
    return folder


@pytest.fixture
def site(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site that has never been started."""
    var = tmp_path / "var"
    settings.GRAFT_VAR = var
    settings.STATIC_ROOT = var / "static"
    settings.GRAFT_REDIS_SOCKET = var / "redis" / "redis.sock"
    monkeypatch.setattr(ENV, "secret_key", "")
    monkeypatch.setattr(ENV, "admin_password", "")
    monkeypatch.setattr(ENV, "first_run", True)
    monkeypatch.setattr(prepare, "static_is_fresh", lambda: True)
    return var


def start(**options: Any) -> str:
    out = io.StringIO()
    call_command("prepare", stdout=out, **options)
    return out.getvalue()


def rows() -> dict[str, int]:
    return {model.__name__: model._default_manager.count() for model in (User, Team, Membership, BaseModel, Dataset, DatasetVersion, Run)}


def test_a_first_start_makes_all_and_a_second_nothing(site: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "sample_model", sample)

    first = start()
    made = rows()
    key = (site / "secret-key").read_text()
    second = start()

    assert set(made.values()) == {1}
    assert rows() == made
    assert OutboxMessage.objects.filter(task="runs.train").count() == 1
    run = Run.objects.get()
    assert (run.state, run.method, run.base_model.name, run.team.slug) == ("queued", "lora", "Tiny", "graft")
    assert run.dataset_version.rows("train") > 500
    assert run.dataset_version.rows("test") > 50
    assert Membership.objects.get().role == Role.OWNER
    password = first.split("password: ")[1].split()[0]
    assert User.objects.get(username="admin").check_password(password)
    assert password not in second
    assert second == ""
    assert (site / "secret-key").read_text() == key
    assert {path: path.stat().st_mode & 0o077 for path in (site, *site.iterdir()) if path.stat().st_mode & 0o077} == {}


def test_what_was_removed_stays_away(site: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "sample_model", sample)
    start()
    Run.objects.all().delete()
    Dataset.objects.all().delete()

    start()

    assert (Run.objects.count(), Dataset.objects.count()) == (0, 0)


def test_an_interrupted_first_start_goes_on(site: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "sample_model", sample)
    monkeypatch.setattr(prepare, "create_run", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        start()
    notes = site / "prepared.json"
    done = json.loads(notes.read_text())
    assert set(done) == {"administrator", "team", "sample_model", "sample_dataset"}
    # The last note was not written either: the dataset is there, and is found again.
    notes.write_text(json.dumps({name: value for name, value in done.items() if name != "sample_dataset"}))
    monkeypatch.undo()
    monkeypatch.setattr(ENV, "sample_model", sample)
    monkeypatch.setattr(ENV, "first_run", True)
    monkeypatch.setattr(prepare, "static_is_fresh", lambda: True)

    start()

    assert set(rows().values()) == {1}


def test_a_given_password_and_no_first_run(site: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "sample_model", sample)
    monkeypatch.setattr(ENV, "admin_password", "from-the-environment")
    monkeypatch.setattr(ENV, "first_run", False)

    text = start()

    assert "from-the-environment" not in text
    assert User.objects.get().check_password("from-the-environment")
    assert (Dataset.objects.count(), Run.objects.count()) == (1, 0)


def test_a_site_without_the_sample_model_starts_and_says_so(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "sample_model", tmp_path / "nowhere")

    assert f"no sample model at {tmp_path / 'nowhere'}" in start()
    assert (User.objects.count(), Dataset.objects.count(), Run.objects.count()) == (1, 0, 0)


def test_a_folder_of_somebody_else_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare.os, "getuid", lambda: 4242)

    with pytest.raises(CommandError, match="belongs to another user"):
        start()
    assert not User.objects.exists()
    assert not (site / "secret-key").exists()
