"""Celery tasks of datasets. The message holds an id alone; what is to be done is read from the database."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from webapp.datasets.services.examine import TASK as EXAMINE
from webapp.datasets.services.examine import examine
from webapp.datasets.services.start_validation import TASK
from webapp.datasets.services.validate import validate


@shared_task(name=TASK, acks_late=True, time_limit=300, soft_time_limit=270)  # type: ignore[untyped-decorator]
def validate_version(version_id: str) -> None:
    """Validates one version (`services.validate`)."""
    validate(UUID(version_id))


@shared_task(name=EXAMINE, acks_late=True, time_limit=600, soft_time_limit=590)  # type: ignore[untyped-decorator]
def examine_version(version_id: str) -> None:
    """Looks at the rows of one version as a whole (`services.examine`)."""
    examine(UUID(version_id))
