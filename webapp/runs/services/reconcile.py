"""Mends what processes left undone. Any number may do it at once: each repair is one conditional UPDATE, and the second finds nothing."""

from __future__ import annotations

import logging
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models.functions import Now

from jobs.errors import GraftError
from webapp.runs import lease
from webapp.runs.ingest import Fenced, ship_rest
from webapp.runs.leftovers import sweep
from webapp.runs.models import Run, Worker
from webapp.runs.order import turns
from webapp.runs.outcome import of
from webapp.runs.services import drafts
from webapp.runs.states import ACTIVE, State
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage
from webapp.work.outbox import ring

log = logging.getLogger(__name__)


def reconcile() -> None:
    """One round: silent workers lose their runs, queued runs get a lost doorbell back, workers long gone and stale drafts are forgotten."""
    reap()
    ring_again()
    # One that is draining is remembered, so that it does not take runs when it comes back.
    Worker.objects.filter(seen_at__lt=lease.after(-ENV.worker_forget_seconds), draining=False).delete()
    drafts.expire()


def reap() -> int:
    """Takes every run whose lease has been over for the grace period from its attempt. Gives how many."""
    expired = Run.objects.filter(state__in=ACTIVE, lease_expires_at__lt=lease.after(-ENV.reap_grace_seconds))
    taken = 0
    for run in expired:
        if not _rest_is_archived(run):
            continue
        reason = f"no sign of life from {run.owner}"
        failure = of(GraftError("infra", count=run.infra_failures + 1, reason=reason))
        state = lease.interrupt(
            run.id, run.attempt, actor=lease.REAPER, detail=reason, failure=failure, retries=ENV.infra_retries, expired=True
        )
        if state is not None:
            log.warning("run %s attempt %s: %s, now %s", run.id, run.attempt, reason, state)
            # Its training has killed itself before the lease was over.
            sweep(run.attempt_folder(run.attempt))
            taken += 1
    return taken


def _rest_is_archived(run: Run) -> bool:
    """Whether the archive has all that the lost attempt wrote; False where there is so much of it that the next round goes on with it."""
    try:
        return ship_rest(run)
    except Fenced:
        return False
    except DatabaseError:
        raise
    except Exception:
        # Whatever a training left in its file, its run must not hang on it.
        log.exception("run %s attempt %s: its last events are not to be had", run.id, run.attempt)
        return True


def ring_again() -> int:
    """Rings for queued runs, the next one first, as many as there are workers that would take one and no more. Gives how many.

    A run whose last doorbell is younger than `ENV.doorbell_repeat_seconds` is left alone: it may be on its way.
    """
    rung = 0
    seen = lease.after(-ENV.worker_forget_seconds)
    idle = list(Worker.objects.filter(run=None, draining=False, seen_at__gt=seen).values_list("queue", flat=True))
    if not idle:
        return 0
    since = lease.after(-ENV.doorbell_repeat_seconds)
    recent = set(OutboxMessage.objects.filter(task=lease.TRAIN_TASK, created_at__gt=since).values_list("subject", flat=True))
    for queue in set(idle):
        waiting = [turn.run_id for turn in turns(queue) if turn.hold is None and turn.run_id not in recent]
        for run_id in waiting[: idle.count(queue)]:
            rung += _ring(run_id, queue)
    return rung


def _ring(run_id: UUID, queue: str) -> bool:
    with transaction.atomic():
        # Under the row's lock, so that of two reconcilers one rings.
        still = Run.objects.filter(pk=run_id, state=State.QUEUED).update(changed_at=Now())
        recent = OutboxMessage.objects.filter(subject=run_id, created_at__gt=lease.after(-ENV.doorbell_repeat_seconds))
        if not still or recent.exists():
            return False
        ring(lease.TRAIN_TASK, run_id, queue)
    return True
