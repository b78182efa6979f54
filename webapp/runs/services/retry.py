"""Try a failed or cancelled run again: a new attempt of the same run, from its last checkpoint."""

from __future__ import annotations

from webapp.runs import lease
from webapp.runs.models import Run
from webapp.runs.services.wish import refuse
from webapp.runs.states import Desired, State


def retry(run: Run, *, actor: str) -> Run:
    """Queues it again; gives the run as it is then. Raises `UserError("run_state")` where it has neither failed nor been cancelled."""
    run.refresh_from_db()
    frm = (State.FAILED, State.CANCELLED)
    fields = {"desired": Desired.RUN, "infra_failures": 0, **lease.NO_FAILURE}
    if not lease.enqueue(run.id, run.attempt, frm=frm, actor=actor, detail="retry", **fields):
        raise refuse(run, "Trying again")
    run.refresh_from_db()
    return run
