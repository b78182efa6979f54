"""What a page needs to know of a run at this moment, as JSON: the first frame of its socket, and again on every change."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jobs.methods.registry import METHODS, get_method
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.order import places
from webapp.runs.states import ACTIVE, LOOK, TERMINAL, Desired, State

_PAUSABLE = frozenset({State.QUEUED, State.STARTING, State.RUNNING})
_AT_REST = frozenset({State.PAUSED, State.SUCCEEDED})


def status(run: Run, queue_position: int | None = None) -> dict[str, Any]:
    """The run as a JSON object. `queue_position` (1 is next) is looked up for a queued run where it is not given.

    `progress` is a share from 0 to 1; times are ISO 8601 in UTC, or null; `can` says which actions fit the state (the role of who
    looks is not in it); `phase`, `latest`, `evals`, `plan`, `peak_memory_bytes` are those of `Run.summary`.
    """
    state = State(run.state)
    style, icon = LOOK[state]
    if state == State.QUEUED and queue_position is None:
        queue_position = position(run)
    return {
        "id": str(run.id),
        "name": run.name,
        "state": state.value,
        "label": str(state.label),
        "look": {"class": style, "icon": icon},
        "desired": run.desired,
        "attempt": run.attempt,
        "last_step": run.last_step,
        "total_steps": run.total_steps,
        "last_checkpoint_step": run.last_checkpoint_step,
        "progress": progress(run),
        **{key: run.summary.get(key) for key in ("phase", "plan", "latest", "evals", "peak_memory_bytes")},
        "message": run.message,
        "remedy": run.remedy,
        "failure_code": run.failure_code,
        "exit_code": run.exit_code,
        "infra_failures": run.infra_failures,
        **{key: _iso(getattr(run, key)) for key in ("created_at", "queued_at", "started_at", "finished_at", "changed_at")},
        "queue_position": queue_position if state == State.QUEUED else None,
        "can": actions(run),
    }


def progress(run: Run) -> float:
    """The share of the training that is done, from 0 to 1."""
    if run.state == State.SUCCEEDED:
        return 1.0
    return min(run.last_step / run.total_steps, 1.0) if run.total_steps else 0.0


def actions(run: Run) -> dict[str, bool]:
    """Which actions fit the run's state, wishes included: what has been asked for already is not offered again."""
    state = State(run.state)
    return {
        "pause": state in _PAUSABLE and run.desired == Desired.RUN,
        "resume": state == State.PAUSED or (state in ACTIVE and run.desired == Desired.PAUSE),
        "finish": state == State.RUNNING and run.kind == Kind.TRAIN and run.desired == Desired.RUN and 0 < run.last_step < run.total_steps,
        "extend": can_grow(run) and (state in _AT_REST or (state in _PAUSABLE and run.desired == Desired.RUN)),
        "cancel": state not in TERMINAL and run.desired != Desired.CANCEL,
        "retry": state in (State.FAILED, State.CANCELLED),
        "delete": state in TERMINAL,
    }


def can_grow(run: Run) -> bool:
    """Whether the run is a training of a method that can go on for more steps than were planned."""
    return run.kind == Kind.TRAIN and run.method in METHODS and get_method(run.method).capabilities.extends


def position(run: Run) -> int | None:
    """The place of a waiting run in its queue: 1 is next (`runs.order`). None where it waits no more."""
    return places(run.queue).get(run.pk)


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
