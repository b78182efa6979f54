"""The page of notifications: what a person wants to hear, and the team's webhooks with the log of what was sent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from jobs.errors import UserError
from webapp.accounts.access import can, enter, get_team, signed_in
from webapp.accounts.models import Team
from webapp.notices.forms import PreferenceForm, WebhookForm
from webapp.notices.models import Delivery, RunEnding, Webhook
from webapp.notices.services.signing import secret_of
from webapp.notices.services.tell import preference_of
from webapp.notices.services.webhooks import add_webhook, delete_webhook, new_secret, send_again, send_test, switch
from webapp.notices.words import page_of, summary, title

LOG = 50
# A page asks every few seconds; one that was asleep is not told of all that it missed.
FEED_SECONDS = 300
FEED = 20


@require_GET
def notifications(request: HttpRequest, slug: str) -> HttpResponse:
    """What I am told, and the team's webhooks with their log where the role allows it; the log alone where htmx asks for it."""
    team = get_team(request.user, slug)
    if request.headers.get("HX-Request") and can(request.user, team, "manage"):
        enter(request, team)
        return render(request, "notices/_log.html", {"deliveries": _log(team)})
    return _page(request, team)


@require_POST
def preferences(request: HttpRequest, slug: str) -> HttpResponse:
    """Keeps what the person wants to hear."""
    team = get_team(request.user, slug)
    form = PreferenceForm(request.POST, instance=preference_of(signed_in(request), team.pk))
    if not form.is_valid():
        return _page(request, team, preference_form=form, status=422)
    form.save()
    messages.success(request, _("Saved."))
    return redirect("notices:notifications", slug)


@require_POST
def add(request: HttpRequest, slug: str) -> HttpResponse:
    """Adds a webhook; its secret stands on the page that answers, and nowhere else."""
    team = get_team(request.user, slug, "manage")
    form = WebhookForm(request.POST)
    if form.is_valid():
        try:
            webhook = add_webhook(team=team, user=signed_in(request), **form.cleaned_data)
            return _page(request, team, new=webhook, secret=secret_of(webhook))
        except UserError as error:
            form.add_error(error.where.get("field"), f"{error.message} {error.remedy}")
    return _page(request, team, webhook_form=form, status=422)


@require_POST
@never_cache
def renew(request: HttpRequest, slug: str, webhook_id: UUID) -> HttpResponse:
    """Makes another secret, which stands on the page that answers."""
    team, webhook = _mine(request, slug, webhook_id)
    webhook = new_secret(webhook, user=signed_in(request))
    return _page(request, team, new=webhook, secret=secret_of(webhook))


@require_POST
def set_active(request: HttpRequest, slug: str, webhook_id: UUID) -> HttpResponse:
    """Switches it on (`active=1`) or off."""
    team, webhook = _mine(request, slug, webhook_id)
    switch(webhook, active=request.POST.get("active") == "1", user=signed_in(request))
    return redirect("notices:notifications", team.slug)


@require_POST
def test(request: HttpRequest, slug: str, webhook_id: UUID) -> HttpResponse:
    """Sends a test message."""
    team, webhook = _mine(request, slug, webhook_id)
    send_test(webhook)
    messages.success(request, _("A test message is on its way; the log shows what comes of it."))
    return redirect("notices:notifications", team.slug)


@require_POST
def delete(request: HttpRequest, slug: str, webhook_id: UUID) -> HttpResponse:
    """Deletes it; its address must be typed to confirm."""
    team, webhook = _mine(request, slug, webhook_id)
    if request.POST.get("confirm", "").strip() != webhook.url:
        messages.error(request, _("Nothing was deleted: what you typed is not the webhook's address."))
    else:
        delete_webhook(webhook, user=signed_in(request))
        messages.success(request, _("The webhook was deleted."))
    return redirect("notices:notifications", team.slug)


@require_POST
def resend(request: HttpRequest, slug: str, delivery_id: UUID) -> HttpResponse:
    """Sends a message once more."""
    team = get_team(request.user, slug, "manage")
    send_again(get_object_or_404(Delivery, pk=delivery_id, webhook__team=team))
    if request.headers.get("HX-Request"):
        enter(request, team)
        return render(request, "notices/_log.html", {"deliveries": _log(team)})
    return redirect("notices:notifications", team.slug)


@require_GET
@never_cache
def feed(request: HttpRequest, slug: str) -> JsonResponse:
    """What the person wants to hear since `?after=` (ISO 8601), for notifications of the open page: `now` and `endings`.

    `now` is the next question's `after`; without one there is nothing new.
    """
    team, moment = get_team(request.user, slug), timezone.now()
    try:
        after = parse_datetime(request.GET.get("after", "")) or moment
    except ValueError:
        after = moment
    after = max(after if timezone.is_aware(after) else moment, moment - timedelta(seconds=FEED_SECONDS))
    preference = preference_of(signed_in(request), team.pk)
    rows = RunEnding.objects.filter(team=team, at__gt=after, at__lte=moment).order_by("at")[:FEED]
    heard = [_heard(ending) for ending in rows if preference.wants(ending)]
    return JsonResponse({"now": moment.isoformat(), "endings": heard})


def _heard(ending: RunEnding) -> dict[str, str]:
    return {"id": str(ending.id), "title": title(ending), "body": summary(ending), "url": page_of(ending)}


def _mine(request: HttpRequest, slug: str, webhook_id: UUID) -> tuple[Team, Webhook]:
    """Team and webhook, through the door. Raises `Http404` for a stranger, `PermissionDenied` for a lesser role."""
    team = get_team(request.user, slug, "manage")
    return team, get_object_or_404(Webhook.objects.select_related("team"), pk=webhook_id, team=team)


def _log(team: Team) -> list[Delivery]:
    return list(Delivery.objects.filter(webhook__team=team).select_related("webhook", "ending")[:LOG])


def _page(request: HttpRequest, team: Team, *, status: int = 200, **context: Any) -> HttpResponse:
    enter(request, team)
    user = signed_in(request)
    shown: dict[str, Any] = {
        "preference_form": PreferenceForm(instance=preference_of(user, team.pk)),
        "mail": settings.GRAFT_EMAIL,
        "webhook_form": WebhookForm(),
        **context,
    }
    if can(user, team, "manage"):
        shown |= {"webhooks": Webhook.objects.filter(team=team), "deliveries": _log(team)}
    return render(request, "notices/notifications.html", shown, status=status)
