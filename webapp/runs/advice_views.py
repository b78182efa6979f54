"""What can be asked beside the form of a new run: advice, and an analysis of its base and rows."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from jobs.errors import UserError
from jobs.planning.rules import Wish
from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.models import Team
from webapp.runs.advice import WISH_WORDS, page_of, panel, wish_of
from webapp.runs.draft_page import draft_page
from webapp.runs.drafts import plain, sent
from webapp.runs.filling import fill, typed
from webapp.runs.forms import RunForm
from webapp.runs.services.analyse import create_analysis
from webapp.runs.services.drafts import own_draft, save


@require_POST
def advice(request: HttpRequest, slug: str) -> HttpResponse:
    """The form as it was sent, with advice; the advice alone where htmx asks for it. With `use` the form, filled in as was advised."""
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    form = RunForm(team, request.POST)
    if "use" in request.POST:
        filled = RunForm(team, initial=typed(form))
        fill(filled, QueryDict(request.POST["use"]))
        return _shown(request, team, filled, "settings", filled=True)
    advised = _advised(team, form, wish_of(request.POST.get("wish", "")))
    if request.headers.get("HX-Request"):
        return render(request, "runs/_advice.html", {"wishes": WISH_WORDS, **advised})
    return _shown(request, team, form, "method", **advised)


def _shown(request: HttpRequest, team: Team, form: RunForm, step: str, **more: Any) -> HttpResponse:
    """The page that the form was sent from: the step of a draft, which keeps what stands in the form, or all on one page."""
    status = 422 if form.errors else 200
    draft = own_draft(team, signed_in(request), request.POST.get("draft", ""))
    if draft is None:
        return render(request, "runs/new.html", page_of(form, **more), status=status)
    save(draft, plain(typed(form if form.is_bound else RunForm(team, sent(form)))), step=step)
    return render(request, "runs/new.html", draft_page(draft, form, step, **more), status=status)


def _advised(team: Team, form: RunForm, wish: Wish) -> dict[str, Any]:
    """What the panel shows: the advice, or why there is none."""
    if not form.is_valid():
        faults = [f"{form.fields[name].label}: {errors[0]}" if name in form.fields else errors[0] for name, errors in form.errors.items()]
        return {"wish": wish, "unadvised": faults}
    try:
        return {"wish": wish, "panel": panel(team, form, wish)}
    except UserError as error:
        return {"wish": wish, "unadvised": [f"{error.message} {error.remedy}"]}


@require_POST
def analyse(request: HttpRequest, slug: str) -> HttpResponse:
    """Queues an analysis of the base and the rows of the form, and goes to its page."""
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    form = RunForm(team, request.POST)
    if form.is_valid():
        try:
            return redirect("runs:detail", create_analysis(form.recipe(), team=team, user=signed_in(request)).id)
        except UserError as error:
            form.refuse(error)
    return _shown(request, team, form, "method")
