"""Celery tasks of notices. The message holds an id alone."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from webapp.notices.services.announce import TELL_TASK
from webapp.notices.services.deliver import deliver
from webapp.notices.services.tell import DELIVER_TASK, tell


@shared_task(name=TELL_TASK, time_limit=60)  # type: ignore[untyped-decorator]
def tell_of_ending(ending_id: str) -> None:
    """Finds out who is to be told (`services.tell`)."""
    tell(UUID(ending_id))


@shared_task(name=DELIVER_TASK, time_limit=90)  # type: ignore[untyped-decorator]
def deliver_one(delivery_id: str) -> None:
    """Makes one attempt (`services.deliver`); the limit is below the time after which another may be made."""
    deliver(UUID(delivery_id))
