"""Use case: how long the rows of a version are for a base model, found out in the box once and kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from jobs.errors import GraftError
from jobs.spec import LossOn
from webapp.catalog.models import BaseModel
from webapp.checks.models import Survey
from webapp.core.box import GIBI, Limits, run_in_box
from webapp.core.locks import alone
from webapp.core.progress import RowProgress
from webapp.datasets.models import DatasetVersion
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage
from webapp.work.outbox import SHORT_QUEUE, ring

TASK = "checks.survey"
LIMITS = Limits(memory_bytes=4 * GIBI, cpu_seconds=240, wall_seconds=260)
State = Survey.State


def ask_survey(version: DatasetVersion, base_model: BaseModel, loss_on: LossOn = "completion") -> Survey:
    """The survey of a ready version for a ready model: the one that is there, else a new one with its doorbell rung; a failed one anew."""
    with transaction.atomic():
        survey, made = Survey.objects.get_or_create(version=version, base_model=base_model, loss_on=loss_on)
        failed = Survey.objects.filter(pk=survey.pk, state=State.FAILED)
        if made or failed.update(state=State.WAITING, message="", progress={}) == 1:
            ring(TASK, survey.pk, SHORT_QUEUE)
            survey.refresh_from_db()
    return survey


def survey(survey_id: UUID) -> None:
    """Waiting -> done or failed. Called twice, late, or for one that is gone, it changes nothing."""
    found = Survey.objects.filter(pk=survey_id, state=State.WAITING).select_related("version", "base_model").first()
    if found is None:
        return
    lock = found.version.check_folder.with_name(f"{survey_id}.lock")
    with alone(lock) as mine:
        rows = Survey.objects.filter(pk=survey_id, state=State.WAITING)
        if not mine or not rows.exists():
            return
        try:
            result = _measure(found, RowProgress(rows))
        except GraftError as error:
            rows.update(state=State.FAILED, message=f"{error.message} {error.remedy}", progress={})
            return
        rows.update(state=State.DONE, result=result, progress={})
    lock.unlink(missing_ok=True)


def _measure(found: Survey, progress: RowProgress) -> dict[str, Any]:
    version, model = found.version, found.base_model
    file = version.folder / "train.jsonl"
    arguments = ["lengths", str(model.folder), str(file), "--rows", str(version.rows("train")), "--loss-on", found.loss_on, "--json"]
    return run_in_box(arguments, readable={model.folder: model.name, version.folder: str(version)}, limits=LIMITS, on_line=progress)


def reconcile() -> None:
    """What waits, and whose last doorbell is old, is announced again. Idempotent."""
    since = timezone.now() - timedelta(seconds=ENV.doorbell_repeat_seconds)
    recent = OutboxMessage.objects.filter(task=TASK, created_at__gt=since).values("subject")
    with transaction.atomic():
        for waiting in Survey.objects.filter(state=State.WAITING).exclude(pk__in=recent):
            ring(TASK, waiting.pk, SHORT_QUEUE)
