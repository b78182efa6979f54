"""How many parameters a run would train, asked for while the form of a new run is filled in."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from webapp.accounts.access import enter, get_team
from webapp.runs.forms import RunForm


@require_POST
def trained(request: HttpRequest, slug: str) -> JsonResponse:
    """For the form as it was sent: `words` for the chosen method with its settings (empty: nothing can be told), and by method `cards`."""
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    form = RunForm(team, request.POST)
    told = form.trained()
    return JsonResponse({"words": told.words if told else "", "cards": form.trained_by_method()})
