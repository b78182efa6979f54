"""Celery tasks of the data check. The message holds an id alone."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from webapp.checks.services.survey import TASK, survey


@shared_task(name=TASK, acks_late=True, time_limit=300, soft_time_limit=270)  # type: ignore[untyped-decorator]
def survey_lengths(survey_id: str) -> None:
    """Measures the rows of one version for one model (`services.survey`)."""
    survey(UUID(survey_id))
