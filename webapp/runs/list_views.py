"""The page of a team's runs: the list, what is done to ticked runs, and lists that are kept by name."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.models import Team
from webapp.runs.bulk import BULK, Asked
from webapp.runs.listing import listing
from webapp.runs.lists.columns import CHOICE
from webapp.runs.lists.fields import EXPLAINED, names
from webapp.runs.lists.groups import GROUPINGS
from webapp.runs.lists.state import ListState
from webapp.runs.models import Run
from webapp.runs.services.saved_views import delete_view, save_view

_UNDO = "runs-undo"


@require_GET
def run_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The team's runs with the fleet; what changes by itself alone where htmx asks for it."""
    team = get_team(request.user, slug)
    enter(request, team)
    context: dict[str, Any] = {"listing": listing(team, signed_in(request), request.GET), "field_names": names()}
    if request.headers.get("HX-Request"):
        return render(request, "runs/list/live.html", context)
    undo = request.session.pop(_UNDO, None)
    context |= {"explained": EXPLAINED, "choice": CHOICE, "groupings": GROUPINGS, "undo": undo if undo and undo["team"] == slug else None}
    return render(request, "runs/list.html", context)


@require_POST
def bulk(request: HttpRequest, slug: str) -> HttpResponse:
    """Does `do` (a key of `bulk.BULK`) to the runs `run`; `tag` names tags, `back` is the query string of the list."""
    action, act = BULK.get(request.POST.get("do", ""), ("control", None))
    team = get_team(request.user, slug, action)
    runs = Run.objects.filter(team=team, pk__in=_uuids(request.POST.getlist("run")))
    if act is None or not runs.exists():
        messages.warning(request, _("Nothing was done: tick a run first."))
        return _back(request, team)
    try:
        done = act(Asked(team, runs.order_by("created_at"), signed_in(request).username, request.POST.get("tag", "")))
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
        return _back(request, team)
    if done.go:
        return redirect(done.go)
    if done.undo:
        _offer_undo(request, team, reverse("runs:bulk", args=[team.slug]), done.words, done.undo)
    else:
        messages.info(request, done.words)
    return _back(request, team)


@require_POST
def save(request: HttpRequest, slug: str) -> HttpResponse:
    """Keeps the list whose query string is `back` under the name `name`; `shared` for the team, where the person may launch."""
    team = get_team(request.user, slug, "view")
    state = ListState.of(QueryDict(request.POST.get("back", "")))
    name, shared = request.POST.get("name", ""), bool(request.POST.get("shared"))
    try:
        view = save_view(team=team, user=signed_in(request), name=name, state=state.saved, shared=shared)
        messages.success(request, _("The view “%(name)s” is kept.") % {"name": view.name})
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    return _back(request, team)


@require_POST
def forget(request: HttpRequest, slug: str, view_id: UUID) -> HttpResponse:
    """Lets a kept list go; it can be brought back at once."""
    team = get_team(request.user, slug, "view")
    view = delete_view(team=team, user=signed_in(request), view_id=view_id)
    if view is None:
        raise Http404
    fields = {"name": view.name, "back": view.state, **({"shared": "1"} if view.shared else {})}
    words = _("The view “%(name)s” was deleted.") % {"name": view.name}
    _offer_undo(request, team, reverse("runs:save-view", args=[team.slug]), words, fields)
    return _back(request, team)


def _back(request: HttpRequest, team: Team) -> HttpResponse:
    """To the list as it was."""
    state = ListState.of(QueryDict(request.POST.get("back", "")))
    return redirect(reverse("runs:list", args=[team.slug]) + state.query(page=state.page))


def _offer_undo(request: HttpRequest, team: Team, url: str, words: str, fields: dict[str, Any]) -> None:
    """The next full page of the list says what was done, with a button that posts `fields` to `url`."""
    pairs = [(name, one) for name, value in fields.items() for one in (value if isinstance(value, list) else [value])]
    request.session[_UNDO] = {"team": team.slug, "url": url, "words": words, "fields": pairs}


def _uuids(texts: list[str]) -> list[UUID]:
    found = []
    for text in texts:
        try:
            found.append(UUID(text))
        except ValueError:
            continue
    return found
