"""Pages of base models."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, require, signed_in
from webapp.catalog.access import get_base_model, models_of
from webapp.catalog.forms import HubForm
from webapp.catalog.services.add_from_hub import add_from_hub, fetch_again


@require_http_methods(["GET", "POST"])
def model_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The models that a team can start from, and the form that adds one of the hub."""
    team = get_team(request.user, slug)
    enter(request, team)
    form = HubForm(request.POST or None)
    if request.method == "POST":
        require(request.user, team, "launch")
        if form.is_valid():
            try:
                return redirect("catalog:detail", add_from_hub(team=team, user=signed_in(request), **form.cleaned_data).pk)
            except UserError as error:
                form.add_error(error.where.get("field"), f"{error.message} {error.remedy}")
    context = {"models": models_of(request.user, team), "form": form}
    return render(request, "catalog/list.html", context, status=422 if form.errors else 200)


@require_GET
def detail(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """What is known of a model."""
    model = get_base_model(request.user, model_id)
    if model.team is not None:
        enter(request, model.team)
    return render(request, "catalog/detail.html", {"model": model})


@require_POST
def retry(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Downloads a model again whose download has failed."""
    fetch_again(get_base_model(request.user, model_id, "launch"))
    return redirect("catalog:detail", model_id)
