"""The lease: the one truth about who may work on a run, held in the database and kept by its clock.

Every move between states is one conditional UPDATE that names the state it leaves and the attempt it speaks for, and whose row count must
be 1; its line of history is written in the same transaction. It is the one primitive that is right on SQLite and PostgreSQL alike. A
process whose UPDATE changes nothing has been fenced: it must stop its training and write nothing more.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from django.db import transaction
from django.db.models import DurationField, Expression, ExpressionWrapper, F
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from webapp.notices.services.announce import announce
from webapp.quotas.services import ledger
from webapp.runs.models import Run, RunEvent, Worker
from webapp.runs.states import ACTIVE, TERMINAL, TRANSITIONS, WANTS_WORK, Desired, State
from webapp.settings.env import ENV
from webapp.work.outbox import ring

TRAIN_TASK = "runs.train"
REAPER = "reaper"


@dataclass(frozen=True)
class Failure:
    """Why a run failed: a code of `jobs.errors.CATALOGUE`, its words, and the child's exit code where there was one."""

    code: str
    message: str
    remedy: str
    exit_code: int | None = None

    def fields(self) -> dict[str, Any]:
        """The columns of `Run` that hold it."""
        return {"failure_code": self.code, "message": self.message, "remedy": self.remedy, "exit_code": self.exit_code}


NO_FAILURE: dict[str, Any] = {"failure_code": "", "message": "", "remedy": "", "exit_code": None}


def after(seconds: float) -> CombinedExpression:
    """The database's clock, `seconds` from now (before now where negative). Hosts may disagree on the time; there is one database."""
    return Now() + timedelta(seconds=seconds)


def since_start() -> Expression:
    """The time since the run's first start, by the database's clock; NULL before it."""
    return ExpressionWrapper(Now() - F("started_at"), output_field=DurationField())


def record(run_id: UUID, *, to: State, actor: str, attempt: int, detail: str = "") -> None:
    """Writes a line of history. The caller holds the run's row in this transaction, so the last line cannot be overtaken."""
    last = RunEvent.objects.filter(run_id=run_id).order_by("-seq").first()
    RunEvent.objects.create(
        run_id=run_id,
        seq=last.seq + 1 if last else 1,
        from_state=last.to_state if last else "",
        to_state=to,
        actor=actor,
        attempt=attempt,
        detail=detail,
    )


def move(
    run_id: UUID,
    attempt: int,
    *,
    to: State,
    frm: Collection[State],
    actor: str,
    detail: str = "",
    wanted: Desired | None = None,
    **fields: Any,
) -> bool:
    """Moves a run of this attempt from one of the states `frm` to `to`, and sets `fields` with it.

    With `wanted`, only while that is what people want. Says whether it happened; False means that somebody else was first.
    Raises `ValueError` for a move that the state machine does not have: that is a mistake in the program.
    """
    if forbidden := [state for state in frm if to not in TRANSITIONS[state]]:
        raise ValueError(f"no move from {', '.join(sorted(forbidden))} to {to}")
    if to in TERMINAL:
        fields = {"finished_at": Now(), "duration": since_start(), "owner": "", **fields}
    with transaction.atomic():
        rows = Run.objects.filter(pk=run_id, attempt=attempt, state__in=frm)
        if wanted is not None:
            rows = rows.filter(desired=wanted)
        if rows.update(state=to, changed_at=Now(), **fields) != 1:
            return False
        record(run_id, to=to, actor=actor, attempt=attempt, detail=detail)
        if to not in ACTIVE:
            ledger.close_use(run_id, attempt)
        if to in TERMINAL:
            _announce(run_id, attempt, to)
    return True


def _announce(run_id: UUID, attempt: int, state: State) -> None:
    """Every end of a run comes by here, whoever brings it about."""
    facts = {"name": "name", "method": "method", "model": "base_model__name", "dataset": "dataset_version__dataset__name",
             "owner": "created_by__username", "message": "message", "remedy": "remedy", "failure_code": "failure_code"}  # fmt: skip
    run = Run.objects.values("team_id", "created_by_id", *facts.values()).get(pk=run_id)
    announce(
        team_id=run["team_id"], run_id=run_id, attempt=attempt, state=state, owner_id=run["created_by_id"],
        facts={name: run[column] for name, column in facts.items()},
    )  # fmt: skip


def enqueue(run_id: UUID, attempt: int, *, frm: Collection[State], actor: str, detail: str = "", **fields: Any) -> bool:
    """Moves a run back to `queued` and rings for a worker, in one transaction. Says whether it happened."""
    with transaction.atomic():
        fields = {"queued_at": Now(), "place": 0, "finished_at": None, "owner": "", **fields}
        if not move(run_id, attempt, to=State.QUEUED, frm=frm, actor=actor, detail=detail, **fields):
            return False
        ring(TRAIN_TASK, run_id, Run.objects.values_list("queue", flat=True).get(pk=run_id))
    return True


def claim(run_id: UUID, owner: str) -> Run | None:
    """Takes a queued run for `owner`: a new attempt, with its lease. None where it is not to be had: then it is somebody else's."""
    with transaction.atomic():
        changed = Run.objects.filter(pk=run_id, state=State.QUEUED, desired__in=WANTS_WORK).update(
            state=State.STARTING,
            attempt=F("attempt") + 1,
            owner=owner,
            lease_expires_at=after(ENV.lease_seconds),
            changed_at=Now(),
            **NO_FAILURE,
        )
        if changed != 1:
            return None
        run = Run.objects.select_related("dataset_version", "base_model").get(pk=run_id)
        record(run_id, to=State.STARTING, actor=owner, attempt=run.attempt)
        device = Worker.objects.filter(name=owner).values_list("device", flat=True).first()
        ledger.open_use(team_id=run.team_id, run_id=run_id, attempt=run.attempt, device=device or {})
    return run


def renew(run_id: UUID, attempt: int, last_step: int) -> Desired | None:
    """Extends the lease of this attempt and says what people want of the run. None: fenced, the run is no longer ours."""
    changed = Run.objects.filter(pk=run_id, attempt=attempt, state__in=ACTIVE).update(
        lease_expires_at=after(ENV.lease_seconds), last_step=last_step, changed_at=Now()
    )
    return desired(run_id, attempt) if changed == 1 else None


def desired(run_id: UUID, attempt: int) -> Desired | None:
    """What people want of a run while this attempt holds it. None: fenced."""
    found = Run.objects.filter(pk=run_id, attempt=attempt, state__in=ACTIVE).values_list("desired", flat=True).first()
    return None if found is None else Desired(found)


def interrupt(
    run_id: UUID,
    attempt: int,
    *,
    actor: str,
    detail: str,
    failure: Failure,
    retries: int,
    expired: bool = False,
    counter: Literal["infra_failures", "memory_cuts"] = "infra_failures",
) -> State | None:
    """Takes a run from an attempt that was lost through no fault of its user, and settles what comes next.

    It goes back to the queue, or where people wanted it to be; after more than `retries` losses of this kind, which `counter` counts, it
    fails with `failure`. With `expired`, only if the lease has been over for the grace period. Gives the state it came to, or None where
    the run was not there to be taken.
    """
    with transaction.atomic():
        rows = Run.objects.filter(pk=run_id, attempt=attempt, state__in=ACTIVE)
        if expired:
            rows = rows.filter(lease_expires_at__lt=after(-ENV.reap_grace_seconds))
        if rows.update(state=State.INTERRUPTED, owner="", changed_at=Now(), **{counter: F(counter) + 1}) != 1:
            return None
        record(run_id, to=State.INTERRUPTED, actor=actor, attempt=attempt, detail=detail)
        ledger.close_use(run_id, attempt)
        # The row is ours until the end of this transaction: nobody's wish can slip in between.
        run = Run.objects.only("desired", counter).get(pk=run_id)
        frm = (State.INTERRUPTED,)
        if run.desired == Desired.CANCEL:
            move(run_id, attempt, to=State.CANCELLED, frm=frm, actor=actor)
            return State.CANCELLED
        if getattr(run, counter) > retries:
            move(run_id, attempt, to=State.FAILED, frm=frm, actor=actor, detail=detail, **failure.fields())
            return State.FAILED
        if run.desired == Desired.PAUSE:
            move(run_id, attempt, to=State.PAUSED, frm=frm, actor=actor)
            return State.PAUSED
        # Being stopped was all that was left to do for an extension: the next attempt takes the spec as it is now.
        enqueue(run_id, attempt, frm=frm, actor=actor, desired=Desired.RUN if run.desired == Desired.EXTEND else run.desired)
        return State.QUEUED
