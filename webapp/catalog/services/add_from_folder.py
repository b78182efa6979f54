"""Use case: add a model of a folder of this host, below one of those that the administrator has opened (GRAFT_MODEL_FOLDERS).

A path counts by what it leads to: links are followed first, and what lies outside afterwards is refused. Nothing of the files is read
here; they are copied, or linked where nobody else may change them, and looked at in the box.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction

from jobs.errors import UserError
from jobs.models.inspect import CONFIG, MAX_FILES
from jobs.models.unpack import refusal_of
from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.catalog.services.adding import announce
from webapp.catalog.services.progress import Progress
from webapp.settings.env import ENV

DEPTH = 3
# What a page looks through and lists at the most.
MOST_LOOKED_AT, MOST_LISTED = 5000, 300
PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class Candidate:
    """A folder that may be a model: its real path, and what people call it (the opened folder's name and the way from there)."""

    path: Path
    label: str


def open_folders() -> list[Path]:
    """The opened folders by their real paths; those that are not there are left out."""
    return [path for name in ENV.split(ENV.model_folders) if (path := Path(name).resolve()).is_dir()]


def candidates() -> list[Candidate]:
    """The folders with a `config.json` below the opened ones, at most `DEPTH` deep, by name. Links to folders are not followed."""
    found: list[Candidate] = []
    looked_at = 0
    for root in open_folders():
        for folder in _folders(root, DEPTH):
            looked_at += 1
            if looked_at > MOST_LOOKED_AT or len(found) == MOST_LISTED:
                return sorted(found, key=lambda one: one.label)
            if (folder / CONFIG).is_file():
                found.append(Candidate(folder, str(Path(root.name) / folder.relative_to(root))))
    return sorted(found, key=lambda one: one.label)


def add_from_folder(*, team: Team, user: User, name: str, path: str) -> BaseModel:
    """A model of the team that is being copied.

    Raises `UserError`: `model_folder` and `model_name_taken` (with the field), `quota_storage`.
    """
    root, folder = _allowed(Path(path))
    taken, left_out = _listed(root, folder)
    label = str(Path(root.name) / folder.relative_to(root))
    with transaction.atomic():
        return announce(
            team=team, user=user, name=name, source=BaseModel.Source.FOLDER, repository=label[-200:],
            more_bytes=sum(file.stat().st_size for file in taken.values()),
            origin={"path": str(folder), "left_out": sorted(left_out)},
        )  # fmt: skip


def bring_folder(model: BaseModel, target: Path, progress: Progress) -> None:
    """Puts the files that a model may have into the new folder `target`. Raises `UserError("model_folder")`, `Gone`."""
    root, folder = _allowed(Path(model.origin["path"]))
    taken, _ = _listed(root, folder)
    target.mkdir(mode=0o700)
    total, done = sum(file.stat().st_size for file in taken.values()), 0
    for name, file in taken.items():
        handle = _open_below(root, file)
        try:
            if not _link(handle, target / name):
                for piece in _copy(handle, target / name):
                    done += piece
                    progress.tell("copying", done, total)
            else:
                done += os.fstat(handle).st_size
                progress.tell("copying", done, total)
        finally:
            os.close(handle)


def _folders(root: Path, depth: int) -> Iterator[Path]:
    yield root
    if depth == 0:
        return
    try:
        with os.scandir(root) as entries:
            below = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return  # not for us to read
    for path in below:
        yield from _folders(Path(path), depth - 1)


def _allowed(path: Path) -> tuple[Path, Path]:
    """The opened folder that `path` lies in, and its real path. Raises `UserError("model_folder")`."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise _refused(path.name, "there is no such folder") from None
    for root in open_folders():
        if real.is_relative_to(root) and real.is_dir():
            return root, real
    raise _refused(path.name, "it is not below one of the folders that the administrator has opened")


def _listed(root: Path, folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The real files that make the model, by name, and the names of those that are left out. Raises `UserError("model_folder")`."""
    taken: dict[str, Path] = {}
    left_out: list[str] = []
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number == MAX_FILES:
                raise _refused(folder.name, f"it holds more than {MAX_FILES} files")
            if refusal_of(entry.name):
                left_out.append(entry.name[:120])
                continue
            real = Path(entry.path).resolve()
            if not real.is_relative_to(root):
                raise _refused(folder.name, f"{entry.name} leads out of the opened folder")
            if not real.is_file():
                raise _refused(folder.name, f"{entry.name} is no plain file")
            taken[entry.name] = real
    if CONFIG not in taken:
        raise _refused(folder.name, f"it has no {CONFIG}")
    return taken, left_out


def _open_below(root: Path, file: Path) -> int:
    """Opens a real path to read, without following a link at its end, and looks where it has led: it may have been changed meanwhile."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as failure:
        raise _refused(file.name, f"it cannot be read ({failure.strerror})") from None
    real = Path(os.readlink(f"/proc/self/fd/{handle}"))
    if real.is_relative_to(root) and stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise _refused(file.name, "it was changed while it was looked at")


def _link(handle: int, target: Path) -> bool:
    """Links an open file where both lie on one disk and nobody but its owner may write it; False where it has to be copied."""
    facts = os.fstat(handle)
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or facts.st_uid not in (0, os.getuid()):
        return False
    try:
        # Naming a folder has Python call linkat, which follows the link to the open file; the path is absolute, so the folder is not used.
        os.link(f"/proc/self/fd/{handle}", target, src_dir_fd=handle, follow_symlinks=True)
    except OSError:
        return False
    return True


def _copy(handle: int, target: Path) -> Iterator[int]:
    """Copies an open file; gives the bytes of each piece."""
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
        offset = 0
        while piece := os.pread(handle, PIECE_BYTES, offset):
            out.write(piece)
            offset += len(piece)
            yield len(piece)
        out.flush()
        os.fsync(out.fileno())


def _refused(path: str, reason: str) -> UserError:
    return UserError("model_folder", path=path[:120], reason=reason, where={"field": "path"})
