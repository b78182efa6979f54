"""What the dispatcher calls now and then: endings and deliveries whose doorbell was lost or whose pause is over, and old ones forgotten."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from webapp.notices.models import Delivery, RunEnding
from webapp.notices.services.announce import TELL_TASK
from webapp.notices.services.tell import DELIVER_TASK
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage
from webapp.work.outbox import SHORT_QUEUE, ring

AT_ONCE = 100
KEPT = timedelta(days=30)


def reconcile() -> None:
    """Idempotent, and safe in several dispatchers at once: a doorbell too many changes nothing."""
    since = Now() - timedelta(seconds=ENV.doorbell_repeat_seconds)
    rung = OutboxMessage.objects.filter(subject=OuterRef("pk"), created_at__gt=since)
    untold = RunEnding.objects.filter(~Exists(rung.filter(task=TELL_TASK)), told_at=None)
    # Of a delivery those count that were rung since its pause was over.
    since_due = rung.filter(task=DELIVER_TASK, created_at__gte=OuterRef("next_at"))
    due = Delivery.objects.filter(~Exists(since_due), state=Delivery.State.WAITING, next_at__lte=Now())
    with transaction.atomic():
        for ending in untold.only("pk")[:AT_ONCE]:
            ring(TELL_TASK, ending.pk, SHORT_QUEUE)
        for delivery in due.only("pk")[:AT_ONCE]:
            ring(DELIVER_TASK, delivery.pk, SHORT_QUEUE)
    RunEnding.objects.filter(at__lt=Now() - KEPT).delete()
    Delivery.objects.filter(ending=None, created_at__lt=Now() - KEPT).delete()
