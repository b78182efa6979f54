"""The Celery task behind the doorbell: it carries a run's id and nothing else. Lost, doubled or late, it changes nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import shared_task

from webapp.runs import lease
from webapp.runs.models import Worker
from webapp.runs.supervisor import Supervisor
from webapp.runs.worker import device_locks, standby_of, stopping


@shared_task(name=lease.TRAIN_TASK, bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def train(self: Any, run_id: str) -> None:
    """Claims the run and supervises its training; a run that is not to be had, or a worker that is to stop, makes this a no-op."""
    owner = self.request.hostname
    if stopping():
        return
    with device_locks(owner) as held:
        # A run that is not taken here stays in the queue, and the reconciler rings again.
        run = lease.claim(UUID(run_id), owner) if held else None
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
