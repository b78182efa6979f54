"""Cancel a run: at once where no worker holds it, else the worker is asked, and the run is `cancelled` when its process is dead."""

from __future__ import annotations

from webapp.accounts.audit_actions import Action
from webapp.accounts.services.audit import record
from webapp.runs import lease
from webapp.runs.models import Run
from webapp.runs.services.wish import refuse, wish
from webapp.runs.states import Desired, State


def cancel(run: Run, *, actor: str) -> Run:
    """Cancels; gives the run as it is then. Raises `UserError("run_state")` where it has ended already."""
    frm = (State.QUEUED, State.PAUSED)
    # Twice: between the two questions a worker may have taken the run, or given it back.
    for _ in range(2):
        run.refresh_from_db()
        done = lease.move(run.id, run.attempt, to=State.CANCELLED, frm=frm, actor=actor, desired=Desired.CANCEL)
        if done or wish(run, Desired.CANCEL, actor=actor):
            run.refresh_from_db()
            record(Action.RUN_CANCELLED, team=run.team, actor=actor, thing=run, name=run.name)
            return run
    raise refuse(run, "Cancelling")
