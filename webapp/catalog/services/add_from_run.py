"""Use case: a model that a run has made becomes a base model of its team. Its files lie unpacked in the run's zip, and are copied out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from jobs.errors import GraftError, UserError
from jobs.models.unpack import refusal_of
from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.catalog.services.adding import announce
from webapp.catalog.services.progress import Progress

PIECE_BYTES = 8 << 20


def add_from_run(*, team: Team, user: User, name: str, licence: str, origin: dict[str, Any]) -> BaseModel:
    """A model of the team that is being copied out of a run's zip; `origin` as `BaseModel` has it, for the source `run`.

    Raises `UserError`: `model_name_taken` (with the field), `quota_storage`.
    """
    size = sum(int(member["bytes"]) for member in origin["members"])
    with transaction.atomic():
        return announce(
            team=team, user=user, name=name, source=BaseModel.Source.RUN, licence=licence, origin=origin, more_bytes=size,
            repository=str(origin["run_name"])[:200], revision=str(origin["sha256"])[:64],
        )  # fmt: skip


def bring_run(model: BaseModel, target: Path, progress: Progress) -> None:
    """Copies the members that a model may have into the new folder `target`.

    Raises `UserError("artifact_unfit")`, `GraftError("artifact_damaged")`, `Gone`.
    """
    archive = Path(settings.GRAFT_VAR) / model.origin["zip"]
    members = [member for member in model.origin["members"] if not refusal_of(str(member["name"]))]
    total, done = sum(int(member["bytes"]) for member in members), 0
    if not archive.is_file():
        raise UserError("artifact_unfit", name=model.origin["artifact_name"], reason="its file is no longer there")
    target.mkdir(mode=0o700)
    with archive.open("rb") as source:
        for member in members:
            source.seek(int(member["offset"]))
            left, digest = int(member["bytes"]), hashlib.sha256()
            with (target / member["name"]).open("xb") as out:
                while left and (piece := source.read(min(PIECE_BYTES, left))):
                    out.write(piece)
                    digest.update(piece)
                    left, done = left - len(piece), done + len(piece)
                    progress.tell("copying", done, total)
                out.flush()
                os.fsync(out.fileno())
            if digest.hexdigest() != member["sha256"]:
                raise GraftError("artifact_damaged", name=member["name"], reason="its SHA-256 is another")
