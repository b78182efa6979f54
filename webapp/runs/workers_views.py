"""The page of workers and queue, and what can be asked of them there.

Members see it; workers and the priority between teams are for administrators of the site; whoever may control runs puts those of the team
in order, and may lower them.
"""

from __future__ import annotations

from typing import cast, get_args
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from jobs.errors import UserError
from webapp.accounts.access import can, enter, get_team, signed_in
from webapp.accounts.models import Team, User
from webapp.runs.models import Run, Worker
from webapp.runs.priorities import Priority
from webapp.runs.services.drain import drain as drain_worker
from webapp.runs.services.reorder import Direction, set_priority, shift
from webapp.runs.workers import pools


@require_GET
def workers(request: HttpRequest, slug: str) -> HttpResponse:
    """Every worker and every queue; the part that lives, alone, where htmx asks for it."""
    return _page(request, get_team(request.user, slug))


@require_POST
def drain(request: HttpRequest, slug: str, worker_id: UUID) -> HttpResponse:
    """`draining=1` lets the worker take no more runs, `draining=0` lets it take them again. For administrators of the site."""
    team = get_team(request.user, slug)
    user = signed_in(request)
    if not user.is_superuser:
        raise PermissionDenied(_("Only an administrator of the site drains workers."))
    drain_worker(get_object_or_404(Worker, pk=worker_id), draining=request.POST.get("draining") == "1", actor=user, team=team)
    return _answer(request, team)


@require_POST
def priority(request: HttpRequest, slug: str, run_id: UUID) -> HttpResponse:
    """Gives a waiting run the posted `priority`."""
    team = get_team(request.user, slug)
    user = signed_in(request)
    run = _waiting(user, team, run_id)
    try:
        wanted = Priority(int(request.POST.get("priority", "")))
    except ValueError:
        messages.error(request, _("Nothing was changed: choose one of the priorities."))
        return _answer(request, team)
    if wanted > max(Priority.NORMAL, run.priority) and not user.is_superuser:
        raise PermissionDenied(_("Only an administrator of the site puts a run before those of other teams."))
    try:
        set_priority(run, wanted, actor=user)
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    return _answer(request, team)


@require_POST
def move(request: HttpRequest, slug: str, run_id: UUID) -> HttpResponse:
    """Moves a waiting run `up`, `down` or to the `top` of its team's line."""
    team = get_team(request.user, slug)
    user = signed_in(request)
    run = _waiting(user, team, run_id)
    direction = request.POST.get("direction")
    try:
        if direction in get_args(Direction):
            shift(run, cast(Direction, direction), actor=user)
        else:
            messages.error(request, _("Nothing was changed: choose up, down or top."))
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    return _answer(request, team)


def _waiting(user: User, team: Team, run_id: UUID) -> Run:
    """The run, if the person may order it: one of the team with the right to control runs, any for an administrator of the site.

    Raises `Http404` for a stranger's run, `PermissionDenied` for a lesser role.
    """
    run = get_object_or_404(Run, pk=run_id)
    if user.is_superuser:
        return run
    if run.team_id != team.pk:
        raise Http404
    if not can(user, team, "control"):
        raise PermissionDenied
    return run


def _answer(request: HttpRequest, team: Team) -> HttpResponse:
    """The part that lives where htmx asks, so that focus stays; else back to the page."""
    return _page(request, team) if request.headers.get("HX-Request") else redirect("runs:workers", team.slug)


def _page(request: HttpRequest, team: Team) -> HttpResponse:
    enter(request, team)
    template = "runs/_workers.html" if request.headers.get("HX-Request") else "runs/workers.html"
    context = {"pools": pools(team), "priorities": Priority, "administers": signed_in(request).is_superuser}
    return render(request, template, context)
