"""Finish a training early: a checkpoint after the step in hand, then evaluation and export as after the last step."""

from __future__ import annotations

from webapp.runs.models import Run
from webapp.runs.services.status import actions
from webapp.runs.services.wish import refuse, wish
from webapp.runs.states import Desired


def finish(run: Run, *, actor: str) -> Run:
    """Asks for it; gives the run as it is then. It will be `succeeded`, with artifacts of what was trained so far, and can be extended.

    A pause gives the device back and waits; this ends the run. Raises `UserError("run_state")` where no training is under way.
    """
    run.refresh_from_db()
    if not actions(run)["finish"] or not wish(run, Desired.FINISH, actor=actor, unless=(Desired.CANCEL, Desired.PAUSE, Desired.EXTEND)):
        raise refuse(run, "Finishing")
    run.refresh_from_db()
    return run
