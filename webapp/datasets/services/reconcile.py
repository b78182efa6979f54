"""What the dispatcher calls now and then: validations that nobody works on are announced again, uploads given up are swept away."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from webapp.datasets.models import DatasetVersion, Upload
from webapp.datasets.services.create_dataset import SPLITS
from webapp.datasets.services.discard_upload import discard_upload
from webapp.datasets.services.examine import TASK as EXAMINE
from webapp.datasets.services.start_validation import TASK
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage
from webapp.work.outbox import SHORT_QUEUE, ring

SWEPT_AT_ONCE = 50


def reconcile() -> None:
    """Idempotent, and safe in several dispatchers at once: a doorbell too many changes nothing."""
    _ring_again()
    _sweep_uploads()


def _ring_again() -> None:
    """What waits, and whose last doorbell is older than `doorbell_repeat_seconds`: the message may be lost."""
    since = timezone.now() - timedelta(seconds=ENV.doorbell_repeat_seconds)
    for task, waiting in ((TASK, {"state": DatasetVersion.State.VALIDATING}), (EXAMINE, {"examined": DatasetVersion.Examined.WAITING})):
        recent = OutboxMessage.objects.filter(task=task, created_at__gt=since).values("subject")
        with transaction.atomic():
            for version in DatasetVersion.objects.filter(**waiting).exclude(pk__in=recent):
                ring(task, version.pk, SHORT_QUEUE)


def _sweep_uploads() -> None:
    """Uploads past their time on which no version stands."""
    used = Q()
    for split in SPLITS:
        used |= Q(pk__in=DatasetVersion.objects.exclude(**{f"{split}_upload": None}).values(f"{split}_upload"))
    for upload in Upload.objects.filter(expires_at__lt=timezone.now()).exclude(used)[:SWEPT_AT_ONCE]:
        discard_upload(upload)
