"""One zip for each artifact, its members stored without compression, so that one file serves the whole and every member by Range.

The format is PKWARE's APPNOTE 6.3.10 (zip64 where a size needs it). The same files give the same bytes: the time of every member is the
format's first day, the order is by name.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from jobs.durable import fsync_folder
from jobs.errors import UserError

FIRST_DAY = (1980, 1, 1, 0, 0, 0)
BLOCK_BYTES = 4 << 20
# A local file header: 30 bytes, then the name and the extra field, whose lengths stand at byte 26.
LOCAL_HEADER_BYTES = 30
LENGTHS_OFFSET = 26


@dataclass(frozen=True)
class Member:
    """A file in the zip; its bytes are those of the zip from `offset` on."""

    name: str
    bytes: int
    sha256: str
    offset: int


@dataclass(frozen=True)
class Archive:
    """A finished zip."""

    path: Path
    bytes: int
    sha256: str
    members: list[Member]

    def event(self, kind: str, out: Path, details: dict[str, Any]) -> dict[str, Any]:
        """The data of its `artifact` event; `out` is the folder that paths of events are relative to."""
        return {
            "name": self.path.name,
            "kind": kind,
            "path": self.path.relative_to(out).as_posix(),
            "bytes": self.bytes,
            "sha256": self.sha256,
            "files": [asdict(member) for member in self.members],
            "details": details,
        }


def unpack(path: Path, folder: Path) -> Path:
    """The folder of a download: `path` itself where it is one, else the files of the zip `path`, written into the new `folder`.

    Raises `UserError("adapter_unusable")` where it is neither, or a member lies in a folder of its own.
    """
    if path.is_dir():
        return path
    try:
        with zipfile.ZipFile(path) as packed:
            names = [name for name in packed.namelist() if Path(name).name != name]
            if names:
                raise UserError("adapter_unusable", path=path.name, reason=f"its member {names[0]!r} is not a plain file name")
            folder.mkdir(parents=True, exist_ok=True)
            packed.extractall(folder)
    except (OSError, zipfile.BadZipFile) as failure:
        raise UserError("adapter_unusable", path=path.name, reason=str(failure)[:200]) from failure
    return folder


def archive(folder: Path, target: Path, progress: Callable[[int, int], None] | None = None) -> Archive:
    """Packs the files of `folder` (no folders within) into the zip `target`, which appears whole or not at all.

    `progress(done, total)` counts bytes. Raises `OSError` (`ENOSPC` among them), leaving nothing behind.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    total = sum(path.stat().st_size for path in files)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        digests = _write(part, files, lambda done: progress(done, total) if progress else None)
        with part.open("r+b") as file:
            members = _members(file, digests)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)
    return Archive(target, target.stat().st_size, digest, members)


def _write(part: Path, files: Sequence[Path], progress: Callable[[int], None]) -> dict[str, str]:
    """Writes the zip; returns the sha256 of each member by name."""
    digests: dict[str, str] = {}
    done = 0
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as zipped:
        for path in files:
            info = zipfile.ZipInfo(path.name, FIRST_DAY)
            info.file_size = path.stat().st_size
            info.create_system, info.external_attr = 3, 0o100644 << 16  # Unix, whatever this machine is
            digest = hashlib.sha256()
            with path.open("rb") as source, zipped.open(info, "w") as member:
                while block := source.read(BLOCK_BYTES):
                    digest.update(block)
                    member.write(block)
                    done += len(block)
                    progress(done)
            digests[path.name] = digest.hexdigest()
    return digests


def _members(file: IO[bytes], digests: dict[str, str]) -> list[Member]:
    """The members of a written zip; leaves the file at its start. The local header says where the bytes begin, not the directory."""
    members = []
    with zipfile.ZipFile(file) as zipped:
        for info in zipped.infolist():
            file.seek(info.header_offset + LENGTHS_OFFSET)
            name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
            offset = info.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
            members.append(Member(info.filename, info.file_size, digests[info.filename], offset))
    file.seek(0)
    return members
