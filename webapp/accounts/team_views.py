"""The settings of a team: its name, its rule about second factors, its end."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.forms import ConfirmForm, TeamForm
from webapp.accounts.models import Team
from webapp.accounts.recent import require_recent_sign_in
from webapp.accounts.services.delete_team import delete_team
from webapp.accounts.services.team_settings import rename_team, require_two_factor, without_two_factor


@require_GET
def settings_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The settings, for the team's owners."""
    return _page(request, get_team(request.user, slug, "own"))


@require_POST
def rename(request: HttpRequest, slug: str) -> HttpResponse:
    """Gives the team another name; its address stays."""
    team = get_team(request.user, slug, "own")
    form = TeamForm(request.POST)
    if not form.is_valid():
        return _page(request, team, name_form=form)
    rename_team(team=team, actor=signed_in(request), name=form.cleaned_data["name"])
    messages.success(request, _("The team is now called %(name)s.") % {"name": team.name})
    return redirect("accounts:settings", slug)


@require_POST
def two_factor(request: HttpRequest, slug: str) -> HttpResponse:
    """Asks a second factor of every member, or no longer."""
    team = get_team(request.user, slug, "own")
    required = request.POST.get("require") == "on"
    require_recent_sign_in(request)
    try:
        require_two_factor(team=team, actor=signed_in(request), required=required)
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
        return redirect("accounts:settings", slug)
    said = (
        _("From now on the team opens only to people with a second factor.") if required else _("A second factor is no longer asked for.")
    )
    messages.success(request, said)
    return redirect("accounts:settings", slug)


@require_POST
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Deletes the team with everything in it; the name must be typed to confirm."""
    team = get_team(request.user, slug, "own")
    form = ConfirmForm(request.POST, expected=team.name)
    if not form.is_valid():
        return _page(request, team, delete_form=form)
    require_recent_sign_in(request)
    try:
        delete_team(team=team, actor=signed_in(request))
    except UserError as error:
        form.add_error(None, f"{error.message} {error.remedy}")
        return _page(request, team, delete_form=form)
    messages.success(request, _("The team %(name)s was deleted.") % {"name": form.expected})
    return redirect("home")


def _page(request: HttpRequest, team: Team, **forms: Any) -> HttpResponse:
    enter(request, team)
    context = {
        "name_form": TeamForm(initial={"name": team.name}, auto_id="name-%s"),
        "delete_form": ConfirmForm(expected=team.name),
        "without": without_two_factor(team),
        **forms,
    }
    return render(request, "accounts/settings.html", context, status=422 if any(form.errors for form in forms.values()) else 200)
