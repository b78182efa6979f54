"""A model out of a zip archive from a stranger: its plain files alone, under names that a model may have, into an empty folder.

Nothing of the archive's own paths reaches the disk. The directory is judged before a byte is unpacked, and bytes are counted as they
come: what a header says of them is not believed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn

from jobs.errors import GraftError, UserError
from jobs.models.inspect import MAX_FILES, NOTES, SHARD_NAME, fetched

# Weights hardly shrink, and JSON some twenty times; a bomb does a thousand times and more.
MOST_RATIO = 100
# A small file may shrink by more without harm.
FREE_BYTES = 1 << 20
PIECE_BYTES = 1 << 20
# The end of an archive, with the longest comment: where the number of its entries stands (APPNOTE.TXT 4.3.16, 4.3.14).
_END_BYTES = 65_557
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"
_DIRECTORY_BYTES = 4 << 20
_ENCRYPTED = 0x1
_UNPACKABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_PICKLES = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle|joblib|npy|npz|h5|msgpack)", re.IGNORECASE)
_CODE = re.compile(r".*\.(py|pyc|so|sh|dll|exe)", re.IGNORECASE)

Progress = Callable[[int, int], None]


def unpack_model(archive: Path, out: Path, *, limit: int, progress: Progress | None = None) -> list[str]:
    """The names of the files that were unpacked into the empty folder `out`, at most `limit` bytes together; `progress` counts bytes.

    Files may stand in one folder of the archive, whatever its name is. Raises `UserError("archive_refused")`, `GraftError("disk_full")`.
    """
    _check_end(archive)
    try:
        with zipfile.ZipFile(archive) as source:
            members = _members(source, limit)
            total, written = sum(member.file_size for member in members.values()), 0
            for name, member in members.items():
                with source.open(member) as stream:
                    written += _copy(stream, out / name, member, limit - written)
                if progress:
                    progress(written, total)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, OverflowError) as failure:
        _refuse(f"it is no zip archive that can be read ({str(failure)[:120] or type(failure).__name__})")
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GraftError("disk_full", path="the folder of models") from failure
        raise
    return sorted(members)


def refusal_of(name: str) -> str:
    """Why a file of this name cannot be part of a model, as a clause; empty where it can."""
    if fetched(name) or SHARD_NAME.fullmatch(name) or any(note.fullmatch(name) for note in NOTES):
        return ""
    if _PICKLES.fullmatch(name):
        return f"{name[:120]!r} is of a kind that can run code when it is loaded; weights are taken as .safetensors alone"
    if _CODE.fullmatch(name):
        return f"{name[:120]!r} is a program; code that comes with a model is never run"
    return f"{name[:120]!r} is none of the files of a model: config.json, tokenizer files, *.safetensors, licence"


def _check_end(archive: Path) -> None:
    """Counts the entries by the archive's end, before anything reads so many of them."""
    size = archive.stat().st_size
    with archive.open("rb") as file:
        file.seek(max(0, size - _END_BYTES))
        tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + 22:
        _refuse("it is no zip archive")
    entries, directory = int.from_bytes(tail[place + 10 : place + 12], "little"), int.from_bytes(tail[place + 12 : place + 16], "little")
    wide = tail.rfind(_END_64)
    if wide >= 0 and len(tail) >= wide + 56:
        entries, directory = int.from_bytes(tail[wide + 32 : wide + 40], "little"), int.from_bytes(tail[wide + 40 : wide + 48], "little")
    if entries > MAX_FILES or directory > _DIRECTORY_BYTES:
        _refuse(f"it holds more than {MAX_FILES:,} files")


def _members(source: zipfile.ZipFile, limit: int) -> dict[str, zipfile.ZipInfo]:
    """The files by the names that they get; every entry is judged."""
    entries = source.infolist()
    if len(entries) > MAX_FILES:
        _refuse(f"it holds more than {MAX_FILES:,} files")
    files = [entry for entry in entries if not _is_folder(entry)]
    _check_overlap(files)
    top = _common_folder(files)
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in files:
        name = _plain_name(entry, top)
        if reason := refusal_of(name):
            _refuse(reason, name)
        if name in found:
            _refuse(f"{name!r} stands in it twice", name)
        found[name] = entry
    if not found:
        _refuse("it holds no file")
    if sum(entry.file_size for entry in files) > limit:
        _refuse(f"it unpacks to more than {limit:,} bytes")
    return found


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is a folder; refuses what is neither that nor a plain file."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        _refuse(f"{entry.filename[:120]!r} is a {'link' if stat.S_ISLNK(kind) else 'special file'}, not a file")
    return entry.is_dir()


def _check_overlap(files: list[zipfile.ZipInfo]) -> None:
    """Two entries never share bytes: a bomb unpacks the same ones over and over."""
    end = -1
    for entry in sorted(files, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            _refuse(f"{entry.filename[:120]!r} lies upon another file of it")
        end = entry.header_offset + 30 + entry.compress_size


def _common_folder(files: list[zipfile.ZipInfo]) -> str:
    """The one folder that all files stand in, with its slash; empty where they stand at the top."""
    heads = {entry.filename.partition("/")[0] if "/" in entry.filename else "" for entry in files}
    head = heads.pop() if len(heads) == 1 else ""
    return f"{head}/" if head and head not in (".", "..") else ""


def _plain_name(entry: zipfile.ZipInfo, top: str) -> str:
    name = entry.orig_filename.removeprefix(top)
    if not name or "\x00" in name or re.search(r"[/\\:]", name) or name in (".", ".."):
        _refuse(f"{entry.orig_filename[:120]!r} is no place for a file of a model: they stand side by side")
    if entry.flag_bits & _ENCRYPTED:
        _refuse(f"{name[:120]!r} is encrypted", name)
    if entry.compress_type not in _UNPACKABLE:
        _refuse(f"{name[:120]!r} is packed in a way that is not read here (choose Deflate or Store)", name)
    if entry.file_size > max(FREE_BYTES, MOST_RATIO * entry.compress_size):
        _refuse(f"{name[:120]!r} unpacks to more than {MOST_RATIO} times its size, as no real file of a model does", name)
    return name


def _copy(stream: IO[bytes], target: Path, member: zipfile.ZipInfo, limit: int) -> int:
    """Writes a member under its new name and returns its length; no more than its header and the limit allow."""
    most, length = min(member.file_size, limit), 0
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as out:
        while piece := stream.read(PIECE_BYTES):
            length += len(piece)
            if length > most:
                _refuse(f"{target.name!r} is longer than the archive says", target.name)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    return length


def _refuse(reason: str, file: str | None = None) -> NoReturn:
    raise UserError("archive_refused", reason=reason, where={"file": file} if file else None)
