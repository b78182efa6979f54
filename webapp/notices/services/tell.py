"""Who is to be told of an ending: a delivery for each webhook and each person who wants it. The body of a task."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import override

from webapp.accounts.access import in_force
from webapp.accounts.models import Membership, User
from webapp.notices.models import Delivery, Preference, RunEnding, Webhook
from webapp.notices.words import event_type, letter, payload, title
from webapp.work.outbox import SHORT_QUEUE, ring

DELIVER_TASK = "notices.deliver"


def tell(ending_id: UUID) -> None:
    """Writes the deliveries of an ending with their doorbells, in one transaction. Called twice, it changes nothing."""
    with transaction.atomic():
        if RunEnding.objects.filter(pk=ending_id, told_at=None).update(told_at=Now()) != 1:
            return
        ending = RunEnding.objects.select_related("team").get(pk=ending_id)
        wanted = Q(failed=True) if ending.failed else Q(ended=True)
        for webhook in Webhook.objects.filter(wanted, team=ending.team, active=True):
            _write(Delivery(ending=ending, webhook=webhook, subject=event_type(ending, webhook), body=payload(ending, webhook)))
        for user in _readers(ending):
            with override(user.language or settings.LANGUAGE_CODE):
                _write(Delivery(ending=ending, user=user, subject=title(ending), body=letter(ending)))


def preference_of(user: User, team_id: UUID) -> Preference:
    """What a person wants to hear; the defaults, not saved, where they have said nothing."""
    return Preference.objects.filter(user=user, team=team_id).first() or Preference(user=user, team_id=team_id)


def _readers(ending: RunEnding) -> list[User]:
    """The members who want an e-mail of this ending and have an address. Nobody, where the site has no mail server."""
    if not settings.GRAFT_EMAIL:
        return []
    members = in_force(Membership.objects.filter(team=ending.team)).exclude(user__email="").select_related("user")
    said = {preference.user_id: preference for preference in Preference.objects.filter(team=ending.team)}
    wishes = ((member.user, said.get(member.user_id) or Preference(user=member.user, team=ending.team)) for member in members)
    return [user for user, wish in wishes if wish.email and wish.wants(ending)]


def _write(delivery: Delivery) -> None:
    delivery.next_at = Now()
    delivery.save(force_insert=True)
    ring(DELIVER_TASK, delivery.id, SHORT_QUEUE)
