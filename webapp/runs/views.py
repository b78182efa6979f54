"""Pages of runs: the form, one run with its parts, and what can be asked of it. Every view enters through the access door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.bearer import takes_token
from webapp.accounts.models import Team
from webapp.accounts.scopes import Scope
from webapp.runs import blocks, page
from webapp.runs.access import get_run
from webapp.runs.advice import page_of
from webapp.runs.analysis import filled
from webapp.runs.extend_form import ExtendForm
from webapp.runs.filling import fill
from webapp.runs.forms import RunForm, initial_of
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services import cancel as cancelling
from webapp.runs.services import delete as deleting
from webapp.runs.services import extend as extending
from webapp.runs.services import finish as finishing
from webapp.runs.services import pause as pausing
from webapp.runs.services import resume as resuming
from webapp.runs.services import retry as retrying
from webapp.runs.services.create import create_run
from webapp.runs.services.series import KEYS, Axis
from webapp.runs.services.series import series as series_of

BUCKETS = 1200
SMOOTHING = 0.9


@require_http_methods(["GET", "POST"])
def new_run(request: HttpRequest, slug: str) -> HttpResponse:
    """The form of a new run, all on one page. `?dataset=` chooses a version, `?base=` a model, `?clone=` repeats a run of the same team,
    `?analysis=` with `&take=` does as one of its analyses suggests; other names are those of fields, with their values.
    """
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    form = RunForm(team, request.POST) if request.method == "POST" else RunForm(team, initial=begun_with(request, team)[0])
    fill(form, request.GET)
    if form.is_valid():
        try:
            return redirect("runs:detail", create_run(form.recipe(), team=team, user=signed_in(request)).id)
        except UserError as error:
            form.refuse(error)
    advised = {"filled": True} if "take" in request.GET else {}
    return render(request, "runs/new.html", page_of(form, **advised), status=422 if form.errors else 200)


def begun_with(request: HttpRequest, team: Team) -> tuple[dict[str, Any], str]:
    """The form's values that a query stands for, and the name of the run that they are those of (empty where it is none)."""
    for name, kind in (("clone", Kind.TRAIN), ("analysis", Kind.ANALYSE)):
        if name not in request.GET:
            continue
        try:
            run = get_run(request.user, UUID(request.GET[name]), "view")
        except ValueError:
            raise Http404 from None
        if run.team_id != team.id or run.kind != kind:
            raise Http404
        if kind == Kind.TRAIN:
            return initial_of(run), run.name
        return initial_of(run) | {"name": "", **filled(run, request.GET.get("take", ""))}, ""
    chosen = {"dataset_version": request.GET.get("dataset"), "base_model": request.GET.get("base"), "method": request.GET.get("method")}
    return {name: value for name, value in chosen.items() if value}, ""


@require_GET
def detail(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The page of a run."""
    run = get_run(request.user, run_id, "view")
    enter(request, run.team)
    return render(request, "runs/detail.html", page.whole(run, request.GET))


@require_GET
def part(request: HttpRequest, run_id: UUID, name: str) -> HttpResponse:
    """One part of the page alone, as the page itself renders it."""
    run = get_run(request.user, run_id, "view")
    enter(request, run.team)
    if name not in page.PARTS:
        raise Http404
    return render(request, f"runs/_{name}.html", page.part(run, name, request.GET))


# Nothing in the answer is secret and chosen by somebody else at once, which is what compression could give away.
@gzip_page
@takes_token(Scope.RUNS_READ)
@require_GET
def series(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The curves as JSON (`services.series`): `keys` of them (all by default), `x` the axis, `start` and `end` its bounds, `smoothing` from
    0 to below 1.
    """
    run = get_run(request.user, run_id, "view")
    asked = request.GET
    try:
        body = series_of(
            run,
            keys=asked.getlist("keys") or KEYS,
            x=cast(Axis, asked.get("x", "step")),
            start=float(asked["start"]) if "start" in asked else None,
            end=float(asked["end"]) if "end" in asked else None,
            buckets=min(int(asked.get("buckets", BUCKETS)), BUCKETS),
            smoothing=float(asked.get("smoothing", SMOOTHING)),
        )
    except ValueError as error:
        return JsonResponse({"error": str(error)}, status=400)
    return JsonResponse(body)


@takes_token(Scope.RUNS_READ)
@require_GET
def block_scores(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The block scores of a block-sparse run over time, as JSON: the `method` events (`jobs.events`)."""
    return JsonResponse({"events": blocks.scores(get_run(request.user, run_id, "view"))})


@require_GET
def block_overlap(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The blocks that this run and `?with=`, another of the same team, have in common."""
    run = get_run(request.user, run_id, "view")
    enter(request, run.team)
    context: dict[str, Any] = {"run": run, "reason": _("Choose a run to compare with on the run's page.")}
    if "with" in request.GET:
        try:
            other = get_run(request.user, UUID(request.GET["with"]), "view")
        except ValueError:
            raise Http404 from None
        if other.team_id != run.team_id:
            raise Http404
        try:
            context = {"run": run, **blocks.compare(run, other)}
        except ValueError as reason:
            context |= {"other": other, "reason": reason}
    return render(request, "runs/overlap.html", context)


@require_POST
def pause(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Asks for a checkpoint and an end that can be resumed."""
    return _act(request, run_id, pausing.pause)


@require_POST
def resume(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Queues a paused run again."""
    return _act(request, run_id, resuming.resume)


@require_POST
def finish(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Asks for an end after the step in hand, with a checkpoint and all that follows a training."""
    return _act(request, run_id, finishing.finish)


@require_http_methods(["GET", "POST"])
def extend(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """How a training goes on for `epochs` more, and what that does to its learning rate; a POST does it."""
    run = get_run(request.user, run_id, "control")
    enter(request, run.team)
    form = ExtendForm(run, request.POST if request.method == "POST" else request.GET or None)
    if request.method == "POST" and form.is_valid():
        try:
            extending.extend(run, epochs=form.cleaned_data["epochs"], actor=signed_in(request).username)
            return redirect("runs:detail", run.id)
        except UserError as error:
            form.add_error(None, f"{error.message} {error.remedy}")
    return render(request, "runs/extend.html", {"run": run, "form": form}, status=422 if form.is_bound and form.errors else 200)


@require_POST
def cancel(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Ends the run."""
    return _act(request, run_id, cancelling.cancel)


@require_POST
def retry(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """A new attempt of a failed or cancelled run, from its last checkpoint."""
    return _act(request, run_id, retrying.retry)


def _act(request: HttpRequest, run_id: UUID, action: Callable[..., Run]) -> HttpResponse:
    run = get_run(request.user, run_id, "control")
    try:
        action(run, actor=signed_in(request).username)
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    return redirect("runs:detail", run.id)


@require_POST
def delete(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Deletes a run that has ended, its records and its files; the name must be typed to confirm."""
    run = get_run(request.user, run_id, "manage")
    if request.POST.get("confirm", "").strip() != run.name:
        messages.error(request, _("Nothing was deleted: the name that you typed is not the run's name."))
        return redirect("runs:detail", run.id)
    try:
        deleting.delete(run, actor=signed_in(request).username)
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
        return redirect("runs:detail", run.id)
    messages.success(request, _("The run %(name)s was deleted.") % {"name": run.name})
    return redirect("runs:list", run.team.slug)
