"""The states of a run, the moves between them, and how each is shown. `desired` is what people want, `state` what machines know."""

from __future__ import annotations

from django.db import models


class State(models.TextChoices):
    """What machines know of a run."""

    QUEUED = "queued", "Queued"
    STARTING = "starting", "Starting"
    RUNNING = "running", "Running"
    STOPPING = "stopping", "Stopping"
    FINALIZING = "finalizing", "Finalizing"
    PAUSED = "paused", "Paused"
    INTERRUPTED = "interrupted", "Interrupted"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class Desired(models.TextChoices):
    """What people want of a run."""

    RUN = "run", "Run"
    PAUSE = "pause", "Pause"
    CANCEL = "cancel", "Cancel"
    # To end after the step in hand as if that were the last, with a checkpoint and all that follows a training.
    FINISH = "finish", "Finish"
    # To stop with a checkpoint and go on at once by the spec that has been changed meanwhile.
    EXTEND = "extend", "Extend"


# A waiting run is taken by a worker where people want one of these.
WANTS_WORK = frozenset({Desired.RUN, Desired.FINISH})

S = State
# A worker holds the lease in these.
ACTIVE = frozenset({S.STARTING, S.RUNNING, S.STOPPING, S.FINALIZING})
TERMINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})

TRANSITIONS: dict[State, frozenset[State]] = {
    S.QUEUED: frozenset({S.STARTING, S.PAUSED, S.CANCELLED}),
    S.STARTING: frozenset({S.RUNNING, S.STOPPING, S.FAILED, S.INTERRUPTED}),
    S.RUNNING: frozenset({S.FINALIZING, S.STOPPING, S.FAILED, S.INTERRUPTED}),
    S.STOPPING: frozenset({S.CANCELLED, S.PAUSED, S.QUEUED, S.SUCCEEDED, S.FAILED, S.INTERRUPTED}),
    S.FINALIZING: frozenset({S.SUCCEEDED, S.STOPPING, S.FAILED, S.INTERRUPTED}),
    S.INTERRUPTED: frozenset({S.QUEUED, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.PAUSED: frozenset({S.QUEUED, S.CANCELLED}),
    # Terminal states are left only by an explicit "retry from checkpoint" or "extend": a new attempt of the same run.
    S.FAILED: frozenset({S.QUEUED}),
    S.CANCELLED: frozenset({S.QUEUED}),
    S.SUCCEEDED: frozenset({S.QUEUED}),
}

# Tag class (static/css/parts.css) and icon (static/icons.svg) of each state; never colour alone, the word stands beside it.
LOOK: dict[State, tuple[str, str]] = {
    S.QUEUED: ("idle", "layers"),
    S.STARTING: ("info", "loader"),
    S.RUNNING: ("info", "loader"),
    S.STOPPING: ("warn", "loader"),
    S.FINALIZING: ("info", "package"),
    S.PAUSED: ("warn", "pause"),
    S.INTERRUPTED: ("warn", "unplug"),
    S.SUCCEEDED: ("ok", "circle-check"),
    S.FAILED: ("err", "circle-x"),
    S.CANCELLED: ("idle", "ban"),
}
