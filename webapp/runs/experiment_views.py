"""Pages of experiments: the list, the form, one experiment, and what is asked of all of its runs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.models import Team
from webapp.runs.access import get_experiment
from webapp.runs.experiments import page
from webapp.runs.experiments.form import AxesForm, ExperimentForm, initial_of
from webapp.runs.experiments.preview import preview_of
from webapp.runs.experiments.templates import BY_ID, TEMPLATES
from webapp.runs.services import experiment as service
from webapp.runs.states import State


@require_GET
def experiment_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The team's experiments."""
    team = get_team(request.user, slug)
    enter(request, team)
    rows = page.experiments_of(team, request.GET.get("page"))
    return render(request, "runs/experiments/list.html", {"page": rows, "templates": TEMPLATES})


@require_http_methods(["GET", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """The form of an experiment. `?template=` fills in a ready-made one, `?clone=` another of the team; `preview` shows its runs."""
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    form = ExperimentForm(team, request.POST) if request.method == "POST" else ExperimentForm(team, initial=_presets(request, team))
    context: dict[str, Any] = {"form": form, "templates": TEMPLATES, "template": BY_ID.get(request.GET.get("template", ""))}
    if form.is_valid() and "preview" in request.POST:
        context["preview"] = preview_of(form)
    elif form.is_valid():
        try:
            found = service.create_experiment(team=team, user=signed_in(request), **form.parameters())
            return redirect("experiments:detail", found.pk)
        except UserError as error:
            form.refuse(error)
    return render(request, "runs/experiments/new.html", context, status=422 if form.errors else 200)


def _presets(request: HttpRequest, team: Team) -> dict[str, Any]:
    if "clone" in request.GET:
        try:
            experiment = get_experiment(request.user, UUID(request.GET["clone"]), "view")
        except ValueError:
            raise Http404 from None
        if experiment.team_id != team.id:
            raise Http404
        return initial_of(experiment)
    template = BY_ID.get(request.GET.get("template", ""))
    chosen = {"dataset_version": request.GET.get("dataset"), "base_model": request.GET.get("base")}
    return {**(template.values if template else {}), **{name: value for name, value in chosen.items() if value}}


@require_GET
def detail(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """The page of an experiment; what changes by itself alone where htmx asks for it."""
    experiment = get_experiment(request.user, experiment_id, "view")
    enter(request, experiment.team)
    template = "runs/experiments/_live.html" if request.headers.get("HX-Request") else "runs/experiments/detail.html"
    return render(request, template, page.page_of(experiment))


@require_GET
def export(request: HttpRequest, experiment_id: UUID, form: str) -> HttpResponse:
    """The experiment's table as a file: `csv`, `md` or `tex`."""
    experiment = get_experiment(request.user, experiment_id, "view")
    if form not in page.FORMATS:
        raise Http404
    headers = {"Content-Disposition": f'attachment; filename="{slugify(experiment.name) or "experiment"}.{form}"'}
    return HttpResponse(page.export(experiment, form), content_type=f"{page.FORMATS[form]}; charset=utf-8", headers=headers)


@require_http_methods(["GET", "POST"])
def add(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """More cells for an experiment; those that are there already are not launched twice."""
    experiment = get_experiment(request.user, experiment_id, "launch")
    enter(request, experiment.team)
    form = AxesForm(request.POST) if request.method == "POST" else AxesForm(initial=initial_of(experiment))
    if form.is_valid():
        try:
            runs = service.add_cells(experiment, user=signed_in(request), axes=form.axes())
        except UserError as error:
            form.refuse(error)
        else:
            said = ngettext("%(count)s run was added.", "%(count)s runs were added.", len(runs)) % {"count": len(runs)}
            messages.success(request, said if runs else _("Nothing was added: the experiment has all of these runs."))
            return redirect("experiments:detail", experiment.pk)
    context = {"experiment": experiment, "form": form}
    return render(request, "runs/experiments/add.html", context, status=422 if form.errors else 200)


@require_POST
def stop(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """Cancels every run that has not ended; they can be tried again."""
    experiment = get_experiment(request.user, experiment_id, "control")
    count = service.stop_all(experiment, actor=signed_in(request).username)
    said = ngettext("%(count)s run is being stopped.", "%(count)s runs are being stopped.", count) % {"count": count}
    messages.info(request, said)
    return redirect("experiments:detail", experiment.pk)


@require_POST
def retry(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """Queues the failed runs again, or, with `state=cancelled`, those that were stopped."""
    experiment = get_experiment(request.user, experiment_id, "control")
    state = State.CANCELLED if request.POST.get("state") == State.CANCELLED else State.FAILED
    count = service.retry_all(experiment, state, actor=signed_in(request).username)
    said = ngettext("%(count)s run is in the queue again.", "%(count)s runs are in the queue again.", count) % {"count": count}
    messages.info(request, said)
    return redirect("experiments:detail", experiment.pk)


@require_POST
def delete(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """Deletes an experiment; its runs stay, each by itself. The name must be typed to confirm."""
    experiment = get_experiment(request.user, experiment_id, "manage")
    if request.POST.get("confirm", "").strip() != experiment.name:
        messages.error(request, _("Nothing was deleted: the name that you typed is not the experiment's name."))
        return redirect("experiments:detail", experiment.pk)
    experiment.delete()
    messages.success(request, _("The experiment %(name)s was deleted. Its runs are still there.") % {"name": experiment.name})
    return redirect("experiments:list", experiment.team.slug)
