"""What a finished child left behind: verified, then published by rows in the transaction that makes the run `succeeded`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction

from jobs.errors import GraftError
from webapp.runs import lease
from webapp.runs.models import Artifact, Run
from webapp.runs.states import Desired, State


def verify(folder: Path, artifacts: list[dict[str, Any]]) -> None:
    """Reads every file that the `artifact` events name. Raises `GraftError("artifact_damaged")` where one is not as it was written.

    Hashing gives up the interpreter's lock, so that the lease can be renewed meanwhile.
    """
    for artifact in artifacts:
        path = folder / artifact["path"]
        if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise GraftError("artifact_damaged", name=artifact["name"], reason="there is no such file")
        if path.stat().st_size != artifact["bytes"]:
            raise GraftError(
                "artifact_damaged", name=artifact["name"], reason=f"it has {path.stat().st_size} bytes, not {artifact['bytes']}"
            )
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != artifact["sha256"]:
            raise GraftError("artifact_damaged", name=artifact["name"], reason="its SHA-256 is another")


def succeed(run_id: UUID, attempt: int, artifacts: list[dict[str, Any]], *, actor: str) -> bool:
    """Publishes and makes the run `succeeded`, in one transaction. Says whether it happened.

    Where it was asked meanwhile to be trained further, it goes on to the queue at once.
    """
    with transaction.atomic():
        frm = (State.FINALIZING, State.STOPPING)
        if not lease.move(run_id, attempt, to=State.SUCCEEDED, frm=frm, actor=actor, exit_code=0):
            return False
        Artifact.objects.bulk_create(
            Artifact(
                run_id=run_id,
                attempt=attempt,
                kind=artifact["kind"],
                name=artifact["name"],
                path=artifact["path"],
                bytes=artifact["bytes"],
                sha256=artifact["sha256"],
                files=artifact.get("files") or [],
                details=artifact.get("details") or {},
            )
            for artifact in artifacts
        )
        if Run.objects.filter(pk=run_id, desired=Desired.EXTEND).exists():
            lease.enqueue(run_id, attempt, frm=(State.SUCCEEDED,), actor=actor, detail="extended", desired=Desired.RUN)
    return True
