"""The dispatcher: carries committed outbox rows to Celery, and runs the reconcilers that mend what processes left undone.

Several at once do no harm: a doorbell that rings twice is answered once. Nothing is lost while Redis or the database is away; the next
tick tries again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.db.models.functions import Now
from django.utils.module_loading import import_string
from kombu.exceptions import OperationalError

from webapp.celery import app
from webapp.work.models import OutboxMessage

log = logging.getLogger(__name__)

BATCH = 200
KEEP = timedelta(days=1)
PRUNE_SECONDS = 300.0


class Dispatcher:
    """One dispatcher. `tick` never raises for a service that is away."""

    def __init__(self) -> None:
        names: list[str] = settings.GRAFT_RECONCILERS
        self._reconcilers: list[Callable[[], Any]] = [import_string(name.replace(":", ".")) for name in names]
        self._down: set[str] = set()
        self._pruned_at = float("-inf")

    def tick(self) -> None:
        """Publishes what is new, mends, and now and then forgets what is old."""
        close_old_connections()
        self._guarded("outbox", publish)
        for reconciler in self._reconcilers:
            self._guarded(reconciler.__module__, reconciler)
        if time.monotonic() - self._pruned_at > PRUNE_SECONDS:
            self._pruned_at = time.monotonic()
            self._guarded("outbox, old rows", prune)

    def _guarded(self, name: str, work: Callable[[], Any]) -> None:
        """Runs one part; an outage is said once, when it begins and when it is over."""
        try:
            work()
        except (OperationalError, DatabaseError) as failure:
            if name not in self._down:
                log.warning("%s: waiting for a service to come back (%s)", name, failure)
            self._down.add(name)
        else:
            if name in self._down:
                log.warning("%s: going on", name)
            self._down.discard(name)


def publish() -> int:
    """Publishes the outbox in order, a batch at most; gives how many. Raises `kombu.exceptions.OperationalError` where Redis is away."""
    waiting = OutboxMessage.objects.filter(published_at=None).order_by("created_at")[:BATCH]
    for message in waiting:
        # One attempt, bounded by the socket's time-outs: it is this loop that tries again.
        app.send_task(message.task, args=[str(message.subject)], queue=message.queue, retry=False, ignore_result=True)
        OutboxMessage.objects.filter(pk=message.pk, published_at=None).update(published_at=Now())
        log.info("rang %s", message)
    return len(waiting)


def prune() -> None:
    """Forgets messages that were published long ago."""
    OutboxMessage.objects.filter(published_at__lt=Now() - KEEP).delete()
