"""Mends what processes left undone. Any number may do it at once: each repair is one conditional UPDATE, and the second finds nothing."""

from __future__ import annotations

import logging
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from jobs.errors import GraftError
from webapp.runs import lease
from webapp.runs.models import Run, Worker
from webapp.runs.outcome import of
from webapp.runs.states import ACTIVE, Desired, State
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage
from webapp.work.outbox import ring

log = logging.getLogger(__name__)


def reconcile() -> None:
    """One round: silent workers lose their runs, queued runs get a lost doorbell back, workers long gone are forgotten."""
    reap()
    ring_again()
    Worker.objects.filter(seen_at__lt=lease.after(-ENV.worker_forget_seconds)).delete()


def reap() -> int:
    """Takes every run whose lease has been over for the grace period from its attempt. Gives how many."""
    expired = Run.objects.filter(state__in=ACTIVE, lease_expires_at__lt=lease.after(-ENV.reap_grace_seconds))
    taken = 0
    for run in expired.only("attempt", "owner", "infra_failures"):
        reason = f"no sign of life from {run.owner}"
        failure = of(GraftError("infra", count=run.infra_failures + 1, reason=reason))
        state = lease.interrupt(
            run.id, run.attempt, actor=lease.REAPER, detail=reason, failure=failure, retries=ENV.infra_retries, expired=True
        )
        if state is not None:
            log.warning("run %s attempt %s: %s, now %s", run.id, run.attempt, reason, state)
            taken += 1
    return taken


def ring_again() -> int:
    """Rings for queued runs, the oldest first, as many as there are idle workers and no more. Gives how many.

    A run whose last doorbell is younger than `ENV.doorbell_repeat_seconds` is left alone: it may be on its way.
    """
    rung = 0
    seen = lease.after(-ENV.worker_forget_seconds)
    recent = OutboxMessage.objects.filter(
        subject=OuterRef("pk"), task=lease.TRAIN_TASK, created_at__gt=lease.after(-ENV.doorbell_repeat_seconds)
    )
    queues = Worker.objects.filter(run=None, seen_at__gt=seen).values_list("queue", flat=True)
    idle = list(queues)
    for queue in set(idle):
        waiting = Run.objects.filter(state=State.QUEUED, desired=Desired.RUN, queue=queue).exclude(Exists(recent)).order_by("queued_at")
        for run_id in waiting.values_list("id", flat=True)[: idle.count(queue)]:
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
