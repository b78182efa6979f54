"""What the dispatcher calls now and then: models that nobody works on are announced again, those of an older edition described anew."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from webapp.catalog.models import BaseModel
from webapp.catalog.services import adding, describe
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage
from webapp.work.outbox import SHORT_QUEUE, ring

State = BaseModel.State


def reconcile() -> None:
    """Idempotent: a doorbell too many changes nothing, since who works on a model holds a lock."""
    since = timezone.now() - timedelta(seconds=ENV.doorbell_repeat_seconds)
    recent = OutboxMessage.objects.filter(task__in=(adding.TASK, describe.TASK), created_at__gt=since).values("subject")
    # Only what has been looked at once can have been looked at by an older edition.
    old = BaseModel.objects.filter(state=State.READY, described__lt=describe.EDITION).exclude(facts={})
    with transaction.atomic():
        for model in BaseModel.objects.filter(state=State.FETCHING).exclude(pk__in=recent):
            ring(adding.TASK, model.pk, SHORT_QUEUE)
        for model in old.exclude(pk__in=recent):
            ring(describe.TASK, model.pk, SHORT_QUEUE)
