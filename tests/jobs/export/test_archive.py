import errno
import hashlib
import os
import zipfile

import pytest

from jobs.export.archive import BLOCK_BYTES, archive


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(os.urandom(BLOCK_BYTES + 17))
    (folder / "config.json").write_text("{}")
    (folder / "empty").write_bytes(b"")
    (folder / "größe.txt").write_text("name beyond ASCII")
    return folder


def test_a_member_is_the_bytes_of_the_zip_at_its_offset(folder, tmp_path):
    made = archive(folder, tmp_path / "out" / "a.zip")
    whole = made.path.read_bytes()
    assert made.bytes == len(whole)
    assert made.sha256 == hashlib.sha256(whole).hexdigest()
    assert [member.name for member in made.members] == ["config.json", "empty", "größe.txt", "weights.safetensors"]
    for member in made.members:
        stored = whole[member.offset : member.offset + member.bytes]
        assert stored == (folder / member.name).read_bytes()
        assert member.sha256 == hashlib.sha256(stored).hexdigest()
    with zipfile.ZipFile(made.path) as zipped:
        assert zipped.testzip() is None
        assert {info.compress_type for info in zipped.infolist()} == {zipfile.ZIP_STORED}
        assert zipped.read("größe.txt").decode() == "name beyond ASCII"


def test_the_same_files_give_the_same_bytes(folder, tmp_path):
    first = archive(folder, tmp_path / "a.zip")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert archive(folder, tmp_path / "b.zip").sha256 == first.sha256


def test_offsets_hold_beyond_zip64(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", BLOCK_BYTES)  # as if the large member were larger than 4 GiB
    made = archive(folder, tmp_path / "a.zip")
    weights = made.members[-1]
    plain = archive(folder, tmp_path / "plain" / "a.zip")
    assert weights.offset == plain.members[-1].offset
    with made.path.open("rb") as file:
        file.seek(weights.offset)
        assert hashlib.sha256(file.read(weights.bytes)).hexdigest() == weights.sha256


def test_progress_counts_every_byte(folder, tmp_path):
    seen = []
    archive(folder, tmp_path / "a.zip", lambda done, total: seen.append((done, total)))
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


def test_a_full_disk_leaves_nothing(folder, tmp_path):
    def full(done: int, total: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        archive(folder, tmp_path / "out" / "a.zip", full)
    assert list((tmp_path / "out").iterdir()) == []
