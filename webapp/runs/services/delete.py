"""Delete a run that has ended: its rows first, its files after commit."""

from __future__ import annotations

import shutil
from functools import partial

from django.db import transaction

from webapp.accounts.audit_actions import Action
from webapp.accounts.services.audit import record
from webapp.runs.models import Run
from webapp.runs.services.wish import refuse
from webapp.runs.states import TERMINAL


def delete(run: Run, *, actor: str) -> None:
    """Deletes the run with its history, records and artifacts. Raises `UserError("run_state")` while it has not ended."""
    folder = run.folder
    with transaction.atomic():
        if not Run.objects.filter(pk=run.pk, state__in=TERMINAL).exists():
            raise refuse(run, "Deleting")
        record(Action.RUN_DELETED, team=run.team, actor=actor, thing=run, name=run.name, detail={"state": run.state})
        Run.objects.filter(pk=run.pk, state__in=TERMINAL).delete()
        # Files without rows are harmless, rows without files are not.
        transaction.on_commit(partial(shutil.rmtree, folder, ignore_errors=True))
