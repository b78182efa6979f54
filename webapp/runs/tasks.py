"""The Celery task behind the doorbell: it carries a run's id and says that there is work. Lost, doubled or late, it changes nothing."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from webapp.runs import lease
from webapp.runs.models import Worker
from webapp.runs.services.claim_next import claim_next
from webapp.runs.supervisor import Supervisor
from webapp.runs.worker import device_locks, standby_of, stopping
from webapp.work.outbox import TRAIN_QUEUE


@shared_task(name=lease.TRAIN_TASK, bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def train(self: Any, run_id: str) -> None:
    """Claims the run whose turn it is, as a rule not the one that is named, and supervises its training. Where none is to be had, or the
    worker is to stop, this is a no-op.
    """
    owner = self.request.hostname
    if stopping():
        return
    with device_locks(owner) as held:
        # A run that is not taken here stays in the queue, and the reconciler rings again.
        run = claim_next(TRAIN_QUEUE, owner) if held else None
        if run is None:
            return
        mine = Worker.objects.filter(name=owner)
        mine.update(run=run)
        try:
            Supervisor(run, owner=owner, shutdown=stopping, standby=standby_of(owner)).run()
        finally:
            mine.update(run=None)
            if not stopping():
                standby_of(owner).start()
