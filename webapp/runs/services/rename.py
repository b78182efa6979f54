"""Give a run another name. Its artifacts keep the file names they were made with."""

from __future__ import annotations

from django.db.models.functions import Now

from jobs.errors import UserError
from webapp.runs.models import Run
from webapp.runs.services.create import NAME_LENGTH


def rename(run: Run, name: str) -> Run:
    """Renames. Raises `UserError("run_name")`."""
    name = name.strip()
    if not name or len(name) > NAME_LENGTH:
        raise UserError("run_name", limit=NAME_LENGTH, where={"field": "name"})
    Run.objects.filter(pk=run.pk).update(name=name, changed_at=Now())
    run.refresh_from_db()
    return run
