"""Archives from strangers: a model's plain files come out, side by side; everything else is refused."""

from __future__ import annotations

import io
import os
import pickle
import stat
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import UserError
from jobs.models.unpack import refusal_of, unpack_model

LIMIT = 10**9
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": bytes(range(256)) * 40}


def pack(path: Path, members: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def unpack(archive: Path, limit: int = LIMIT) -> dict[str, bytes]:
    out = archive.parent / "out"
    out.mkdir()
    names = unpack_model(archive, out, limit=limit)
    assert sorted(path.name for path in out.iterdir()) == names
    return {name: (out / name).read_bytes() for name in names}


def refused(archive: Path, limit: int = LIMIT) -> str:
    out = archive.parent / "out"
    out.mkdir()
    began = time.monotonic()
    with pytest.raises(UserError) as refusal:
        unpack_model(archive, out, limit=limit)
    assert time.monotonic() - began < 2
    assert refusal.value.code == "archive_refused"
    return refusal.value.message


@pytest.mark.parametrize("top", ["", "my-model/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_model_comes_out_as_it_went_in(tmp_path: Path, top: str, compression: int) -> None:
    archive = pack(tmp_path / "m.zip", {f"{top}{name}": body for name, body in MODEL.items()}, compression=compression)
    assert unpack(archive) == MODEL


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    told: list[tuple[int, int]] = []
    archive = pack(tmp_path / "m.zip", MODEL)
    unpack_model(archive, tmp_path / "out", limit=LIMIT, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 10_244), (4, 10_244), (10_244, 10_244)]


@pytest.mark.parametrize(
    "name",
    [
        "../config.json", "../../etc/passwd", "/etc/passwd", "/abs/config.json", "a/b/config.json", "a/../../config.json",
        "..\\..\\config.json", "C:\\config.json", "C:config.json", "..", "a//config.json",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    refused(pack(tmp_path / "m.zip", {**MODEL, name: b"x"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.zip", "out"]
    assert not (tmp_path / "out" / "config.json").exists()


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/PWNED",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pytorch_model.bin", "can run code"), ("training_args.bin", "can run code"), ("rng_state.pth", "can run code"),
        ("scheduler.pt", "can run code"), ("x.pkl", "can run code"), ("x.joblib", "can run code"), ("x.npy", "can run code"),
        ("modeling_evil.py", "is a program"), ("evil.so", "is a program"), ("model.gguf", "none of the files"),
        ("inner.zip", "none of the files"), ("tokenizer_config.json.bak", "none of the files"), (".hidden", "none of the files"),
        ("x" * 200 + ".safetensors", "none of the files"), ("\u202egnp.json", "none of the files"),
    ],
)  # fmt: skip
def test_what_no_model_needs_is_refused_by_its_kind(tmp_path: Path, name: str, words: str) -> None:
    body = pickle.dumps(Bomb())
    assert words in refused(pack(tmp_path / "m.zip", {**MODEL, name: body}))
    assert words in refusal_of(name)
    assert not Path("/tmp/PWNED").exists()


@pytest.mark.parametrize(("kind", "word"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "special"), (stat.S_IFCHR, "special")])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int, word: str) -> None:
    entry = zipfile.ZipInfo("model.safetensors")
    entry.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("config.json", b"{}")
        archive.writestr(entry, "/etc/passwd")
    assert word in refused(tmp_path / "m.zip")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bomb_is_known_by_its_ratio(tmp_path: Path) -> None:
    assert "more than 100 times" in refused(pack(tmp_path / "m.zip", {**MODEL, "vocab.json": bytes(20_000_000)}))
    assert list((tmp_path / "out").iterdir()) == []


def test_more_than_the_limit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    assert "more than 5,000 bytes" in refused(pack(tmp_path / "m.zip", MODEL), limit=5000)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_header_that_lies_about_a_length_is_not_believed(tmp_path: Path) -> None:
    archive = pack(tmp_path / "m.zip", {"config.json": os.urandom(3_000_000)}, compression=zipfile.ZIP_DEFLATED)
    body = bytearray(archive.read_bytes())
    directory = body.rfind(b"PK\x01\x02")
    struct.pack_into("<L", body, directory + 24, 10)  # uncompressed size
    archive.write_bytes(body)
    refused(archive)
    written = tmp_path / "out" / "config.json"
    assert not written.exists() or written.stat().st_size <= 10


def test_a_million_entries_are_refused_by_their_count(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("config.json", b"{}")
    body = bytearray(packed.getvalue())
    end = body.rfind(b"PK\x05\x06")
    struct.pack_into("<HHL", body, end + 8, 65_000, 65_000, 60_000_000)
    (tmp_path / "m.zip").write_bytes(body)
    assert "more than 1,000 files" in refused(tmp_path / "m.zip")


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("vocab.json", b"{}" * 5000)
        archive.writestr("tokenizer.json", b"{}")
        first, second = archive.infolist()
        second.header_offset = first.header_offset + 40
    assert "lies upon" in refused(tmp_path / "m.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("config.json", b"{}")
        archive.writestr("config.json", b"[]")
    assert "twice" in refused(tmp_path / "m.zip")


@pytest.mark.parametrize("body", [b"", b"PK", b"not a zip at all", b"PK\x05\x06" + bytes(18), bytes(100_000)])
def test_what_is_no_archive(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "m.zip").write_bytes(body)
    refused(tmp_path / "m.zip")


def test_a_damaged_member(tmp_path: Path) -> None:
    archive = pack(tmp_path / "m.zip", MODEL)
    body = bytearray(archive.read_bytes())
    place = body.find(b"model.safetensors") + 40
    body[place : place + 20] = bytes(20)
    archive.write_bytes(body)
    refused(archive)
