"""Use case: add a model of files that were uploaded: one zip archive, or the files themselves. They are parsed in the box alone.

Uploads are rows of another app, and reached from their team; the model takes the bytes over, and the uploads are gone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO
from uuid import UUID

from django.db import transaction
from django.db.models import ProtectedError

from jobs.errors import UserError
from jobs.models.unpack import refusal_of
from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.catalog.services.adding import announce, incoming_folder
from webapp.catalog.services.progress import Progress
from webapp.core.box import GIBI, Limits, run_in_box
from webapp.settings.env import ENV

MOST_FILES = 200
ARCHIVE = "archive.zip"
# Unpacking is reading and writing: two hours of it are more than the largest upload takes on a slow disk.
LIMITS = Limits(memory_bytes=2 * GIBI, cpu_seconds=3600, wall_seconds=7200, file_bytes=1024 * GIBI)


def add_from_upload(*, team: Team, user: User, name: str, uploads: Sequence[UUID], model_files: Mapping[str, IO[bytes]]) -> BaseModel:
    """A model of the team out of complete uploads and of files that came with the form itself, by name.

    Raises `UserError`: `model_files` and `upload_unknown` (with the field), `model_name_taken`, `quota_storage`.
    """
    rows = list(team.uploads.filter(pk__in=uploads, state="complete"))
    if len(rows) != len(set(uploads)):
        raise UserError("upload_unknown", where={"field": "model_files"})
    names = [*(row.filename for row in rows), *model_files]
    targets = _targets(names)
    with transaction.atomic():
        model = announce(team=team, user=user, name=name, source=BaseModel.Source.UPLOAD, origin={"files": sorted(names)})
        folder = incoming_folder(model)
        folder.mkdir(mode=0o700, parents=True)
        try:
            for row, target in zip(rows, targets, strict=False):
                os.link(row.path, folder / target)
            for stream, target in zip(model_files.values(), targets[len(rows) :], strict=True):
                with (folder / target).open("xb") as out:
                    shutil.copyfileobj(stream, out)
            for row in rows:
                transaction.on_commit(partial(row.path.unlink, missing_ok=True))
                row.delete()
        except ProtectedError:
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError("upload_unknown", where={"field": "model_files"}) from None  # a dataset stands on it
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return model


def bring_upload(model: BaseModel, target: Path, progress: Progress) -> None:
    """Puts the uploaded files into the new folder `target`: as they are, or unpacked in the box. Raises `UserError`, `Gone`."""
    incoming = incoming_folder(model)
    archive = incoming / ARCHIVE
    if not incoming.is_dir():
        raise UserError("upload_unknown")
    target.mkdir(mode=0o700)
    if not archive.is_file():
        for file in incoming.iterdir():
            os.link(file, target / file.name)
        return
    run_in_box(
        ["unpack", str(archive), "--out", str(target), "--limit", str(4 * ENV.upload_limit_bytes), "--json"],
        readable={archive: model.origin["files"][0]},
        writable=target,
        limits=LIMITS,
        on_line=progress.line,
    )


def _targets(names: Sequence[str]) -> list[str]:
    """The name that each file gets: its own, which is one that a model may have, or that of the archive. Raises `UserError`."""
    if not names:
        raise UserError("upload_unknown", where={"field": "model_files"})
    if len(names) == 1 and names[0].lower().endswith(".zip"):
        return [ARCHIVE]
    if len(names) > MOST_FILES:
        raise _refused(f"There are more than {MOST_FILES} files")
    for name in names:
        if reason := refusal_of(name):
            raise _refused(reason[0].upper() + reason[1:])
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _refused(f"{twice} is there twice")
    return list(names)


def _refused(reason: str) -> UserError:
    return UserError("model_files", reason=reason, where={"field": "model_files"})
