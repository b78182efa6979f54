"""Quotas and use: the page of a team, and those of the site's administrators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods

from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.models import Team, User
from webapp.core.formats import format_bytes, format_number
from webapp.quotas.forms import QuotaForm
from webapp.quotas.models import Quota
from webapp.quotas.services.set_quota import set_quota
from webapp.quotas.services.use import Use, use_of

KINDS: dict[str, Promise] = {
    "uploads": gettext_lazy("Uploads"),
    "datasets": gettext_lazy("Datasets"),
    "checkpoints": gettext_lazy("Checkpoints"),
    "artifacts": gettext_lazy("Artifacts"),
    "models": gettext_lazy("Base models"),
}


@dataclass(frozen=True)
class Bar:
    """One limit: what is used of it, in words, and as a share from 0 to 1 (None where there is no limit)."""

    name: Any
    used: str
    limit: str
    share: float | None

    @property
    def full(self) -> bool:
        """Whether nothing more goes."""
        return self.share is not None and self.share >= 1


def bars(use: Use, quota: Quota | None) -> list[Bar]:
    """The four limits of a team."""
    hours: Callable[[Any], str] = lambda value: f"{format_number(value, 1)} h"  # noqa: E731
    limits = quota or Quota()
    return [
        _bar(_("Storage"), use.storage_bytes, limits.storage_bytes, format_bytes),
        _bar(_("Running runs"), use.running_runs, limits.running_runs, format_number),
        _bar(_("Waiting runs"), use.queued_runs, limits.queued_runs, format_number),
        _bar(_("Device hours of this month"), use.compute_hours, limits.compute_hours, hours),
    ]


@require_GET
def usage(request: HttpRequest, slug: str) -> HttpResponse:
    """What the team uses, against its limits."""
    team = get_team(request.user, slug)
    enter(request, team)
    use = use_of([team])[team.pk]
    stored = [(KINDS[kind], count) for kind, count in use.stored.items()]
    context = {"bars": bars(use, Quota.objects.filter(team=team).first()), "stored": stored, "administers": signed_in(request).is_superuser}
    return render(request, "quotas/usage.html", context)


@require_GET
def site(request: HttpRequest) -> HttpResponse:
    """Every team of the site with use and limits."""
    _administrator(request)
    teams = list(Team.objects.select_related("quota").order_by("name"))
    used = use_of(teams)
    rows = [(team, bars(used[team.pk], getattr(team, "quota", None))) for team in teams]
    return render(request, "quotas/site.html", {"rows": rows})


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, slug: str) -> HttpResponse:
    """The form of a team's limits."""
    user = _administrator(request)
    team = get_object_or_404(Team, slug=slug)
    form = QuotaForm(request.POST or None, initial=QuotaForm.initial_of(Quota.objects.filter(team=team).first()))
    if request.method == "POST" and form.is_valid():
        set_quota(team=team, user=user, limits=form.limits())
        messages.success(request, _("The limits of %(team)s were set.") % {"team": team.name})
        return redirect("quotas:site")
    use = use_of([team])[team.pk]
    return render(request, "quotas/edit.html", {"form": form, "of": team, "bars": bars(use, None)}, status=422 if form.errors else 200)


def _administrator(request: HttpRequest) -> User:
    user = signed_in(request)
    if not user.is_superuser:
        raise PermissionDenied(_("Only an administrator of the site sets limits."))
    return user


def _bar(name: str, used: float, limit: float | None, words: Callable[[Any], str]) -> Bar:
    share = None if limit is None else 1.0 if limit == 0 else min(1.0, used / limit)
    return Bar(name, words(used), "" if limit is None else words(limit), share)
