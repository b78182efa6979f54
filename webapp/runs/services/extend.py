"""Extend a training by some epochs: the same run goes on from its last checkpoint, in a new attempt, by a spec of more epochs.

The learning rate follows its schedule over all steps, old and new, as the engine does for any plan of steps (`jobs.training.schedule`):
a rate that had fallen rises again, to where it would be at that step of a run of the new length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F

from jobs.errors import UserError
from jobs.methods.registry import get_method
from jobs.training.schedule import rate_factor, warmup_steps
from webapp.accounts.audit_actions import Action
from webapp.accounts.services.audit import record as audit
from webapp.runs import lease
from webapp.runs.models import Run
from webapp.runs.services.status import actions
from webapp.runs.services.wish import refuse, wish
from webapp.runs.states import ACTIVE, Desired, State

MOST_EPOCHS = 1000


@dataclass(frozen=True)
class Extension:
    """What an extension comes to: the spec's new `epochs` and `max_steps`; where the plan is known, the last step and the learning rate
    at the last step done and at the one that follows (None: not known yet).
    """

    epochs: float
    max_steps: int | None
    total_steps: int | None = None
    rate_before: float | None = None
    rate_after: float | None = None


def extension(run: Run, epochs: float) -> Extension:
    """That of `epochs` more. A run that ended before its last planned step is extended from where it ended.

    Raises `UserError("spec_bad_value")` where the number of epochs makes no sense.
    """
    training = run.spec["training"]
    per_epoch = (run.summary.get("plan") or {}).get("steps_per_epoch")
    base = training["epochs"]
    if run.state == State.SUCCEEDED and per_epoch and run.last_step:
        base = min(base, run.last_step / per_epoch)
    if not math.isfinite(epochs) or epochs <= 0 or base + epochs > MOST_EPOCHS:
        reason = f"more than 0 and at most {MOST_EPOCHS - base:g} epochs can be added"
        raise UserError("spec_bad_value", field="epochs", value=f"{epochs:g}", reason=reason)
    limit = training.get("max_steps")
    if limit is not None and not per_epoch:
        reason = "the run is limited to a number of steps, and how many make an epoch is known only when it has begun"
        raise UserError("spec_bad_value", field="epochs", value=f"{epochs:g}", reason=reason)
    if limit is not None and per_epoch:
        limit = (run.last_step if run.state == State.SUCCEEDED else limit) + math.ceil(epochs * per_epoch)
    planned = Extension(round(base + epochs, 6), limit)
    return _with_rates(run, planned, per_epoch) if per_epoch else planned


def _with_rates(run: Run, planned: Extension, per_epoch: float) -> Extension:
    training = run.spec["training"]
    total = max(1, math.ceil(planned.epochs * per_epoch - 1e-6))
    total = min(total, planned.max_steps) if planned.max_steps else total
    before = (run.summary.get("latest") or {}).get("learning_rate")
    peak = training.get("learning_rate") or get_method(run.method).learning_rate
    after = None
    if run.last_step < total:
        share = rate_factor(
            run.last_step,
            total_steps=total,
            warmup=warmup_steps(total, training["warmup_share"]),
            kind=training["schedule"],
            cycles=training["schedule_cycles"],
        )
        after = peak * share
    return Extension(planned.epochs, planned.max_steps, total, before, after)


def extend(run: Run, *, epochs: float, actor: str) -> Run:
    """Extends; gives the run as it is then: one that had ended or ran is queued again, or will be once its checkpoint is written; one
    that waits or is paused stays so. Raises `UserError`: `run_state` where it cannot be extended now, `spec_bad_value`.
    """
    with transaction.atomic():
        # The row is locked by this UPDATE: the spec that is changed is the one that was read.
        Run.objects.filter(pk=run.pk).update(attempt=F("attempt"))
        run.refresh_from_db()
        if not actions(run)["extend"]:
            raise refuse(run, "Extending")
        wanted = extension(run, epochs)
        was = run.spec["training"]["epochs"]
        training: dict[str, Any] = {**run.spec["training"], "epochs": wanted.epochs, "max_steps": wanted.max_steps}
        Run.objects.filter(pk=run.pk).update(spec={**run.spec, "training": training})
        detail = f"extended by {epochs:g} epochs: from {was:g} to {wanted.epochs:g}"
        _go_on(run, actor, detail)
        audit(Action.RUN_EXTENDED, team=run.team, actor=actor, thing=run, name=run.name)
    run.refresh_from_db()
    return run


def _go_on(run: Run, actor: str, detail: str) -> None:
    """What the state asks for: a run that trains is stopped at a checkpoint and begins a new attempt by the new spec."""
    if run.state == State.SUCCEEDED:
        lease.enqueue(run.pk, run.attempt, frm=(State.SUCCEEDED,), actor=actor, detail=detail, desired=Desired.RUN)
        return
    lease.record(run.pk, to=State(run.state), actor=actor, attempt=run.attempt, detail=detail)
    if run.state in ACTIVE:
        wish(run, Desired.EXTEND, actor=actor)
