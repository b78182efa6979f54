"""Resume a paused run from its last checkpoint; one that is still pausing goes back to the queue when it has stopped."""

from __future__ import annotations

from webapp.runs import lease
from webapp.runs.models import Run
from webapp.runs.services.wish import refuse, wish
from webapp.runs.states import Desired, State


def resume(run: Run, *, actor: str) -> Run:
    """Resumes; gives the run as it is then. Raises `UserError("run_state")` where it is neither paused nor pausing."""
    # Twice: between the two questions a worker may have taken the run, or given it back.
    for _ in range(2):
        run.refresh_from_db()
        done = lease.enqueue(run.id, run.attempt, frm=(State.PAUSED,), actor=actor, desired=Desired.RUN)
        if done or wish(run, Desired.RUN, actor=actor, unless=(Desired.CANCEL, Desired.FINISH, Desired.EXTEND)):
            run.refresh_from_db()
            return run
    raise refuse(run, "Resuming")
