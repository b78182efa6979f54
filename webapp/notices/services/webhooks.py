"""Use cases of a team's webhooks: add, change, new secret, delete, test, send again."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from jobs.errors import UserError
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team, User
from webapp.accounts.services.audit import record
from webapp.core.outbound import NotCalled, check
from webapp.notices.models import Delivery, Webhook
from webapp.notices.services.tell import DELIVER_TASK
from webapp.notices.words import test_message
from webapp.work.outbox import SHORT_QUEUE, ring

AT_MOST = 10


def add_webhook(*, team: Team, user: User, url: str, ended: bool, failed: bool, style: str = Webhook.Style.GRAFT) -> Webhook:
    """A new webhook. Raises `UserError`: `webhook_address` (`where.field` is `url`), `webhooks_too_many`."""
    try:
        check(url)
    except NotCalled as refusal:
        raise UserError("webhook_address", reason=refusal, where={"field": "url"}) from refusal
    with transaction.atomic():
        Team.objects.select_for_update().get(pk=team.pk)
        if Webhook.objects.filter(team=team).count() >= AT_MOST:
            raise UserError("webhooks_too_many", limit=AT_MOST)
        webhook = Webhook.objects.create(team=team, url=url, style=style, ended=ended, failed=failed, created_by=user)
        record(Action.WEBHOOK_ADDED, team=team, actor=user, thing=webhook)
    return webhook


@transaction.atomic
def switch(webhook: Webhook, *, active: bool, user: User) -> None:
    """Switches it on or off; what waits for one that is off is given up."""
    if Webhook.objects.filter(pk=webhook.pk).exclude(active=active).update(active=active):
        record(Action.WEBHOOK_ON if active else Action.WEBHOOK_OFF, team=webhook.team, actor=user, thing=webhook)


def new_secret(webhook: Webhook, *, user: User) -> Webhook:
    """Another secret from now on; the old one signs nothing more. Returns the row as it is then."""
    with transaction.atomic():
        Webhook.objects.filter(pk=webhook.pk).update(generation=F("generation") + 1)
        record(Action.WEBHOOK_SECRET, team=webhook.team, actor=user, thing=webhook)
    webhook.refresh_from_db()
    return webhook


def delete_webhook(webhook: Webhook, *, user: User) -> None:
    """Deletes it with its log."""
    with transaction.atomic():
        record(Action.WEBHOOK_DELETED, team=webhook.team, actor=user, thing=webhook)
        webhook.delete()


def send_test(webhook: Webhook) -> Delivery:
    """Queues a message of type `test`."""
    with transaction.atomic():
        body = test_message(webhook, timezone.now())
        delivery = Delivery.objects.create(id=uuid.uuid4(), webhook=webhook, subject="test", body=body, next_at=Now())
        ring(DELIVER_TASK, delivery.id, SHORT_QUEUE)
    return delivery


def send_again(delivery: Delivery) -> None:
    """Queues a delivery that has ended once more: the same message with the same id, so that a receiver can tell. Others are left alone."""
    ended = (Delivery.State.SENT, Delivery.State.FAILED)
    with transaction.atomic():
        again = Delivery.objects.filter(pk=delivery.pk, state__in=ended)
        if again.update(state=Delivery.State.WAITING, attempts=0, next_at=Now(), status_code=None, answer=""):
            ring(DELIVER_TASK, delivery.id, SHORT_QUEUE)
