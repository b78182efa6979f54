"""The page that combines finished adapters of one base."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.models import Team
from webapp.runs.access import get_run
from webapp.runs.compose_form import ComposeForm, initial_of
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services.compose import compose_run


@require_http_methods(["GET", "POST"])
def combine(request: HttpRequest, slug: str) -> HttpResponse:
    """The form of a composition. `?with=` chooses a run's adapter, `?clone=` repeats a composition, both of the same team."""
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    form = ComposeForm(team, request.POST) if request.method == "POST" else ComposeForm(team, initial=_presets(request, team))
    if form.is_valid():
        try:
            return redirect("runs:detail", compose_run(team=team, user=signed_in(request), **form.parameters()).id)
        except UserError as error:
            form.refuse(error)
    return render(request, "runs/combine.html", form.context(), status=422 if form.errors else 200)


def _presets(request: HttpRequest, team: Team) -> dict[str, Any]:
    if "clone" in request.GET:
        run = _asked_for(request, team, "clone")
        if run.kind != Kind.COMPOSE:
            raise Http404
        return initial_of(run)
    return {"adapters": [str(_asked_for(request, team, "with").id)]} if "with" in request.GET else {}


def _asked_for(request: HttpRequest, team: Team, name: str) -> Run:
    """The run of the team that the query names. Raises `Http404` for any other."""
    try:
        run = get_run(request.user, UUID(request.GET[name]), "view")
    except ValueError:
        raise Http404 from None
    if run.team_id != team.id:
        raise Http404
    return run
