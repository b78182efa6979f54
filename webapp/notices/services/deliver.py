"""Deliver one word: a signed request or an e-mail, tried again with growing pauses. The body of a task.

An attempt is counted before it is made, so that one that takes its process down counts too; its pause begins then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from smtplib import SMTPException
from uuid import UUID

from django.core.mail import EmailMessage
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from webapp.accounts.access import in_force
from webapp.accounts.models import Membership
from webapp.core.outbound import NotCalled, post
from webapp.notices.models import Delivery, Webhook
from webapp.notices.services.signing import headers, secret_of

# After the first attempt, the second ...: those of Standard Webhooks, a day and a half in all.
PAUSES_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 72_000)
# For so long an attempt is left alone before another process may take it up.
ATTEMPT_SECONDS = 120
ANSWER_LENGTH = 500
GONE = 410

State = Delivery.State


@dataclass(frozen=True)
class Result:
    """What came of an attempt; `final` is one after which none follows."""

    ok: bool
    answer: str
    status_code: int | None = None
    final: bool = False


def deliver(delivery_id: UUID) -> None:
    """Makes an attempt where one is due. Called twice, early, or for a word that is gone, it changes nothing."""
    due = Delivery.objects.filter(pk=delivery_id, state=State.WAITING, next_at__lte=Now())
    if due.update(attempts=F("attempts") + 1, last_at=Now(), next_at=Now() + timedelta(seconds=ATTEMPT_SECONDS)) != 1:
        return
    delivery = Delivery.objects.select_related("webhook", "user", "ending").get(pk=delivery_id)
    result = _to_webhook(delivery, delivery.webhook) if delivery.webhook else _to_person(delivery)
    _settle(delivery, result)


def _to_webhook(delivery: Delivery, webhook: Webhook) -> Result:
    if not webhook.active:
        return Result(ok=False, answer=_("The webhook is switched off."), final=True)
    body = delivery.body.encode()
    signed = headers(secret_of(webhook), f"msg_{delivery.id.hex}", int(time.time()), body)
    try:
        answer = post(webhook.url, body, {"content-type": "application/json", "user-agent": "Graft-Webhook/1.0", **signed})
    except NotCalled as failure:
        return Result(ok=False, answer=str(failure))
    if answer.status == GONE:
        # The receiver's own word for "no more": by the standard it is not asked again.
        Webhook.objects.filter(pk=webhook.pk).update(active=False)
    return Result(ok=200 <= answer.status < 300, answer=answer.text, status_code=answer.status, final=answer.status == GONE)


def _to_person(delivery: Delivery) -> Result:
    user, ending = delivery.user, delivery.ending
    assert user is not None and ending is not None  # noqa: S101, PT018 - the database holds it so
    if not user.email or not in_force(Membership.objects.filter(user=user, team=ending.team_id)).exists():
        return Result(ok=False, answer=_("No member any more, or without an address."), final=True)
    try:
        sent = EmailMessage(delivery.subject, delivery.body, None, [user.email], headers={"Message-ID": f"<{delivery.id}@graft>"}).send()
    except (SMTPException, OSError) as failure:
        return Result(ok=False, answer=str(failure))
    return Result(ok=sent == 1, answer="" if sent == 1 else _("The mail server took no message."))


def _settle(delivery: Delivery, result: Result) -> None:
    """Writes what came of it; nothing, where somebody has asked for it to be sent again meanwhile."""
    fields: dict[str, object] = {"status_code": result.status_code, "answer": result.answer[:ANSWER_LENGTH]}
    if result.ok:
        fields["state"] = State.SENT
    elif result.final or delivery.attempts > len(PAUSES_SECONDS):
        fields["state"] = State.FAILED
    else:
        fields["next_at"] = Now() + timedelta(seconds=PAUSES_SECONDS[delivery.attempts - 1])
    Delivery.objects.filter(pk=delivery.pk, state=State.WAITING, attempts=delivery.attempts).update(**fields)
