"""Celery tasks of datasets. The message holds an id alone; what is to be done is read from the database."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from webapp.datasets.services.start_validation import TASK
from webapp.datasets.services.validate import validate


@shared_task(name=TASK, acks_late=True, time_limit=300, soft_time_limit=270)  # type: ignore[untyped-decorator]
def validate_version(version_id: str) -> None:
    """Validates one version (`services.validate`)."""
    validate(UUID(version_id))
