"""Celery tasks of the catalogue. The message holds an id alone."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from webapp.catalog.services import adding, describe
from webapp.catalog.services.fetch import HOURS, fetch

# The child is killed with this process; a download that was cut off is announced again and goes on where it was.
TIME_LIMIT_SECONDS = 13 * HOURS


@shared_task(name=adding.TASK, time_limit=TIME_LIMIT_SECONDS)  # type: ignore[untyped-decorator]
def fetch_model(model_id: str) -> None:
    """Adds one model (`services.fetch`)."""
    fetch(UUID(model_id))


@shared_task(name=describe.TASK, time_limit=HOURS)  # type: ignore[untyped-decorator]
def describe_model(model_id: str) -> None:
    """Describes one model anew (`services.describe`)."""
    describe.describe_again(UUID(model_id))
