"""Base models from a folder that the administrator has opened, and from uploads: taken in as they are, or refused with nothing left."""

from __future__ import annotations

import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from tests.tiny import make_tiny_model
from tests.webapp.cast import Cast
from webapp.accounts.models import AuditEvent
from webapp.catalog.models import BaseModel
from webapp.catalog.services import describe
from webapp.catalog.services.add_from_folder import candidates
from webapp.catalog.services.fetch import fetch
from webapp.datasets.models import Upload
from webapp.datasets.services.store_file import store_file
from webapp.quotas.models import Quota
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-model")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture
def opened(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An opened folder with a model in it, and beside it one that is not open."""
    root = tmp_path / "shared"
    shutil.copytree(tiny, root / "llms" / "tiny-model")
    shutil.copytree(tiny, tmp_path / "secret" / "theirs")
    monkeypatch.setattr(ENV, "model_folders", f"{root}, {tmp_path / 'absent'}")
    return root


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless template is a matter of seconds of processor time, and the suite has few."""
    monkeypatch.setattr(describe, "CHAT_LIMITS", replace(describe.CHAT_LIMITS, cpu_seconds=3))


def add_folder(cast: Cast, path: Path, name: str = "") -> Any:
    return cast.client(cast.bob).post(reverse("catalog:add", args=["night", "folder"]), {"path": str(path), "name": name})


def taken_in(name: str) -> BaseModel:
    model = BaseModel.objects.get(name=name)
    fetch(model.pk)
    model.refresh_from_db()
    return model


def nothing_was_added() -> None:
    assert not BaseModel.objects.exists()
    assert not OutboxMessage.objects.exists()


# -- a folder of the host ----------------------------------------------------------------------------------------------


def test_a_folder_is_listed_copied_described_and_offered(cast: Cast, opened: Path, tiny: Path) -> None:
    assert [(one.label, one.path) for one in candidates()] == [("shared/llms/tiny-model", opened / "llms/tiny-model")]
    page = cast.client(cast.bob).get(reverse("catalog:add", args=["night", "folder"])).content.decode()
    assert "shared/llms/tiny-model" in page
    assert "theirs" not in page
    assert add_folder(cast, opened / "llms/tiny-model").status_code == 302
    assert [ring.task for ring in OutboxMessage.objects.all()] == ["catalog.fetch"]
    model = taken_in("tiny-model")
    assert (model.state, model.message, model.licence, model.repository) == ("ready", "", "mit", "shared/llms/tiny-model")
    assert (model.folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert (model.facts["architecture"], model.described) == ("LlamaForCausalLM", 1)
    assert not model.folder.with_suffix(".part").exists()
    assert AuditEvent.objects.get(action="model.added").detail == {"source": "folder"}
    # What is changed in the folder afterwards, by writing a file anew, does not change the model.
    (opened / "llms/tiny-model/config.json").unlink()
    assert (model.folder / "config.json").is_file()


def test_programs_and_pickles_are_left_out_and_named(cast: Cast, opened: Path) -> None:
    folder = opened / "llms/tiny-model"
    for name in ("pytorch_model.bin", "modeling_evil.py", "training_args.bin"):
        (folder / name).write_bytes(b"\x80\x04")
    (folder / "onnx").mkdir()
    add_folder(cast, folder, "Mine")
    model = taken_in("Mine")
    assert model.state == "ready"
    assert model.origin["left_out"] == ["modeling_evil.py", "onnx", "pytorch_model.bin", "training_args.bin"]
    assert not {"pytorch_model.bin", "modeling_evil.py"} & {path.name for path in model.folder.iterdir()}
    assert "modeling_evil.py" in cast.client(cast.vera).get(reverse("catalog:detail", args=[model.pk])).content.decode()


def test_links_within_the_opened_folder_are_followed(cast: Cast, opened: Path) -> None:
    """As the Hub's own cache has them: a snapshot of links to blobs."""
    weights = opened / "llms/tiny-model/model.safetensors"
    weights.rename(opened / "blob")
    weights.symlink_to("../../blob")
    add_folder(cast, opened / "llms/tiny-model")
    model = taken_in("tiny-model")
    assert (model.state, (model.folder / "model.safetensors").is_symlink()) == ("ready", False)


@pytest.mark.parametrize("what", ["outside", "dots", "link to a folder", "link to a file", "root", "nothing"])
def test_nothing_outside_the_opened_folders_is_reached(cast: Cast, opened: Path, what: str) -> None:
    secret = opened.parent / "secret" / "theirs"
    path = {
        "outside": secret, "dots": opened / ".." / "secret" / "theirs", "link to a folder": opened / "alias",
        "link to a file": opened / "llms/tiny-model", "root": Path("/"), "nothing": opened / "absent",
    }[what]  # fmt: skip
    (opened / "alias").symlink_to(secret)
    if what == "link to a file":
        (path / "model.safetensors").unlink()
        (path / "model.safetensors").symlink_to(secret / "model.safetensors")
    answer = add_folder(cast, path)
    assert answer.status_code == 422
    nothing_was_added()


def test_a_file_that_becomes_a_link_afterwards_is_refused(cast: Cast, opened: Path) -> None:
    add_folder(cast, opened / "llms/tiny-model")
    weights = opened / "llms/tiny-model/model.safetensors"
    weights.unlink()
    weights.symlink_to(opened.parent / "secret/theirs/model.safetensors")
    model = taken_in("tiny-model")
    assert (model.state, "leads out of the opened folder" in model.message) == ("failed", True)
    assert not model.folder.exists()


def test_a_folder_that_was_closed_meanwhile(cast: Cast, opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_folder(cast, opened / "llms/tiny-model")
    monkeypatch.setattr(ENV, "model_folders", "")
    assert taken_in("tiny-model").state == "failed"
    assert "No folder is open" in cast.client(cast.bob).get(reverse("catalog:add", args=["night", "folder"])).content.decode()


def test_a_file_that_others_may_write_is_copied_not_linked(cast: Cast, opened: Path) -> None:
    config, weights = (opened / "llms/tiny-model" / name for name in ("config.json", "model.safetensors"))
    config.chmod(0o666)
    weights.chmod(0o644)
    add_folder(cast, opened / "llms/tiny-model")
    model = taken_in("tiny-model")
    assert (model.folder / "config.json").stat().st_ino != config.stat().st_ino
    linked = opened.stat().st_dev == model.folder.stat().st_dev
    assert ((model.folder / "model.safetensors").stat().st_ino == weights.stat().st_ino) == linked


@pytest.mark.parametrize(
    ("file", "body", "words"),
    [
        ("config.json", '{"auto_map": {"AutoModelForCausalLM": "evil.Evil"}, "architectures": ["LlamaForCausalLM"]}', "auto_map"),
        ("tokenizer.json", '{"model": {"type": "Evil"}}', "does not load"),
        ("chat_template.jinja", ENDLESS, "does not end within bounds"),
        ("chat_template.jinja", "{{ 'A' * 3000000000 }}", "does not end within bounds"),
    ],
    ids=["code", "tokenizer", "endless template", "huge template"],
)  # fmt: skip
@pytest.mark.usefixtures("impatient")
def test_hostile_files_are_refused_in_the_box(cast: Cast, opened: Path, file: str, body: str, words: str) -> None:
    (opened / "llms/tiny-model" / file).write_text(body)
    add_folder(cast, opened / "llms/tiny-model")
    model = taken_in("tiny-model")
    assert (model.state, words in model.message) == ("failed", True), model.message
    assert not model.folder.exists()
    assert str(opened.parent) not in model.message
    shown = cast.client(cast.bob).get(reverse("catalog:detail", args=[model.pk]))
    assert (shown.status_code, "could not be added" in shown.content.decode()) == (200, True)


def test_a_name_that_is_taken_is_told_at_the_field(cast: Cast, opened: Path) -> None:
    BaseModel.objects.create(team=cast.team, name="Mine", source="hub", state="ready")
    answer = add_folder(cast, opened / "llms/tiny-model", "Mine")
    assert answer.context["form"].errors.keys() == {"name"}
    assert f'value="{opened}/llms/tiny-model" selected' in answer.content.decode()


def test_a_full_quota_refuses(cast: Cast, opened: Path) -> None:
    Quota.objects.create(team=cast.team, storage_bytes=1000)
    answer = add_folder(cast, opened / "llms/tiny-model")
    assert answer.status_code == 422
    nothing_was_added()


# -- an upload ---------------------------------------------------------------------------------------------------------


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return packed.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def store(cast: Cast, name: str, body: bytes) -> Upload:
    return store_file(team=cast.team, user=cast.bob, filename=name, bytes_total=len(body), source=io.BytesIO(body))


def add_upload(cast: Cast, *uploads: Upload, **more: Any) -> Any:
    filled = {"name": "Sent", "uploads": [str(upload.pk) for upload in uploads], **more}
    return cast.client(cast.bob).post(reverse("catalog:add", args=["night", "upload"]), filled)


@pytest.mark.django_db(transaction=True)
def test_an_archive_is_unpacked_in_the_box_and_offered(cast: Cast, tiny: Path) -> None:
    upload = store(cast, "model.zip", zipped({f"my-model/{name}": body for name, body in files_of(tiny).items()}))
    assert add_upload(cast, upload).status_code == 302
    assert not Upload.objects.exists()
    assert not upload.path.exists()
    model = taken_in("Sent")
    assert (model.state, model.message, model.licence, model.origin) == ("ready", "", "mit", {"files": ["model.zip"]})
    assert files_of(model.folder) == files_of(tiny)
    assert not model.folder.with_suffix(".in").exists()
    assert model.progress["name"] == "unpacking"


@pytest.mark.django_db(transaction=True)
def test_files_one_by_one_are_a_model_too(cast: Cast, tiny: Path) -> None:
    assert add_upload(cast, *(store(cast, name, body) for name, body in files_of(tiny).items())).status_code == 302
    model = taken_in("Sent")
    assert (model.state, files_of(model.folder)) == ("ready", files_of(tiny))


def test_without_a_script_the_files_come_with_the_form(cast: Cast, tiny: Path) -> None:
    archive = SimpleUploadedFile("model.zip", zipped(files_of(tiny)))
    answer = add_upload(cast, model_files=archive)
    assert answer.status_code == 302, answer.context["form"].errors
    assert taken_in("Sent").state == "ready"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["config.json", "pytorch_model.bin"], "can run code"),
        (["config.json", "modeling.py"], "is a program"),
        (["model.zip", "config.json"], "none of the files of a model"),
        (["config.json", "config.json"], "there twice"),
        (["model.gguf"], "none of the files"),
    ],
)
def test_files_that_no_model_has_are_refused_at_the_form(cast: Cast, names: list[str], words: str) -> None:
    uploads = [store(cast, name, b"x") for name in names]
    answer = add_upload(cast, *uploads)
    assert answer.status_code == 422
    assert words in str(answer.context["form"].errors["model_files"])
    nothing_was_added()
    assert Upload.objects.count() == len(names)
    assert all(upload.path.exists() for upload in uploads)


def test_uploads_of_others_and_such_as_are_not_there(cast: Cast, tiny: Path) -> None:
    theirs = store_file(team=cast.other_team, user=cast.charlie, filename="model.zip", bytes_total=1, source=io.BytesIO(b"x"))
    half = Upload.objects.create(team=cast.team, created_by=cast.bob, filename="m.zip", bytes_total=9, expires_at=theirs.expires_at)
    for ids in ([theirs.pk], [half.pk], ["no-id"], ["0" * 32], []):
        answer = cast.client(cast.bob).post(reverse("catalog:add", args=["night", "upload"]), {"name": "Sent", "uploads": ids})
        assert (answer.status_code, answer.context["form"].errors.keys()) == (422, {"model_files"})
    nothing_was_added()
    assert theirs.path.exists()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"../../evil.json": b"{}"}, "no place for a file"),
        ({"pytorch_model.bin": b"\x80"}, "can run code"),
        ({"vocab.json": bytes(20_000_000)}, "more than 100 times"),
        ({}, "holds no file"),
    ],
)
def test_hostile_archives_are_refused_in_the_box(cast: Cast, members: dict[str, bytes], words: str) -> None:
    add_upload(cast, store(cast, "model.zip", zipped(members)))
    model = taken_in("Sent")
    assert (model.state, words in model.message) == ("failed", True), model.message
    assert not model.folder.exists()


def test_a_model_that_is_deleted_while_it_comes_leaves_nothing(cast: Cast, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from webapp.catalog.services import progress

    add_upload(cast, store(cast, "model.zip", zipped(files_of(tiny))))
    model = BaseModel.objects.get()
    told = progress.Progress.tell

    def deleted_before(self: progress.Progress, name: str, done: int, total: int) -> None:
        BaseModel.objects.filter(pk=model.pk).delete()
        told(self, name, done, total)

    monkeypatch.setattr(progress.Progress, "tell", deleted_before)
    fetch(model.pk)
    assert not BaseModel.objects.exists()
    assert not model.folder.exists()
    assert not model.folder.with_suffix(".part").exists()


def test_what_a_viewer_cannot(cast: Cast) -> None:
    for way in ("hub", "folder", "upload"):
        assert cast.client(cast.vera).post(reverse("catalog:add", args=["night", way])).status_code == 403
    assert cast.client(cast.bob).get(reverse("catalog:add", args=["night", "ftp"])).status_code == 404
