"""Pause a run: a queued one stays out of the queue; a running one writes a checkpoint and gives its device back."""

from __future__ import annotations

from webapp.runs import lease
from webapp.runs.models import Run
from webapp.runs.services.wish import refuse, wish
from webapp.runs.states import Desired, State


def pause(run: Run, *, actor: str) -> Run:
    """Pauses; gives the run as it is then. Raises `UserError("run_state")` where it has ended or is paused already."""
    # Twice: between the two questions a worker may have taken the run, or given it back.
    for _ in range(2):
        run.refresh_from_db()
        done = lease.move(run.id, run.attempt, to=State.PAUSED, frm=(State.QUEUED,), actor=actor, desired=Desired.PAUSE)
        if done or wish(run, Desired.PAUSE, actor=actor, unless=(Desired.CANCEL,)):
            run.refresh_from_db()
            return run
    raise refuse(run, "Pausing")
