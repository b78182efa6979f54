"""What the dispatcher calls now and then: downloads that nobody works on are announced again."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from webapp.catalog.models import BaseModel
from webapp.catalog.services.add_from_hub import TASK
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage
from webapp.work.outbox import SHORT_QUEUE, ring


def reconcile() -> None:
    """Idempotent: a doorbell too many changes nothing, since the download holds a lock."""
    since = timezone.now() - timedelta(seconds=ENV.doorbell_repeat_seconds)
    recent = OutboxMessage.objects.filter(task=TASK, created_at__gt=since).values("subject")
    with transaction.atomic():
        for model in BaseModel.objects.filter(state=BaseModel.State.FETCHING).exclude(pk__in=recent):
            ring(TASK, model.pk, SHORT_QUEUE)
