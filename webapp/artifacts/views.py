"""Pages of artifacts: the list of a team's, the page of one, and what is done with it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, signed_in
from webapp.artifacts.access import get_artifact
from webapp.artifacts.listing import Filter, downloads_of, listing
from webapp.artifacts.services.delete_artifact import delete_artifact
from webapp.artifacts.services.loading import ways_of
from webapp.artifacts.services.register_as_base import KINDS, register_as_base
from webapp.catalog.forms import NAME_LENGTH
from webapp.runs.models import Artifact
from webapp.runs.page import facts_of

ORDER_NAMES = {
    "new": gettext_lazy("Newest first"), "large": gettext_lazy("Largest first"), "name": gettext_lazy("By name"),
    "run": gettext_lazy("By run"),
}  # fmt: skip


class BaseForm(forms.Form):
    """What a registered model is called."""

    name = forms.CharField(label=gettext_lazy("Name of the base model"), max_length=NAME_LENGTH)


@require_GET
def artifact_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The artifacts of a team, those that match."""
    team = get_team(request.user, slug)
    enter(request, team)
    wanted = Filter.of(request.GET)
    context = {"listing": listing(team, wanted, request.GET.get("page")), "wanted": wanted}
    return render(request, "artifacts/list.html", {**context, "kinds": Artifact.Kind.choices, "orders": ORDER_NAMES})


@require_GET
def detail(request: HttpRequest, artifact_id: UUID) -> HttpResponse:
    """What an artifact is, its files, how to load it."""
    return _page(request, get_artifact(request.user, artifact_id))


@require_POST
def use_as_base(request: HttpRequest, artifact_id: UUID) -> HttpResponse:
    """Makes a model of a run a base model of the team."""
    artifact = get_artifact(request.user, artifact_id, "launch")
    form = BaseForm(request.POST)
    if form.is_valid():
        try:
            name = form.cleaned_data["name"].strip()
            return redirect("catalog:detail", register_as_base(artifact=artifact, user=signed_in(request), name=name).pk)
        except UserError as error:
            form.add_error("name" if error.where.get("field") == "name" else None, f"{error.message} {error.remedy}")
    return _page(request, artifact, form=form)


@require_POST
def delete(request: HttpRequest, artifact_id: UUID) -> HttpResponse:
    """Deletes an artifact; its name must be typed to confirm."""
    artifact = get_artifact(request.user, artifact_id, "manage")
    if request.POST.get("confirm", "").strip() != artifact.name:
        messages.error(request, _("Nothing was deleted: the name that you typed is not the artifact's name."))
        return redirect("artifacts:detail", artifact_id)
    try:
        delete_artifact(artifact, signed_in(request))
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
        return redirect("artifacts:detail", artifact_id)
    messages.success(request, _("The artifact %(name)s was deleted.") % {"name": artifact.name})
    return redirect("artifacts:list", artifact.run.team.slug)


def _page(request: HttpRequest, artifact: Artifact, *, form: BaseForm | None = None) -> HttpResponse:
    enter(request, artifact.run.team)
    form = form or BaseForm(initial={"name": artifact.run.name})
    context: dict[str, Any] = {
        "artifact": artifact,
        "facts": facts_of(artifact),
        "ways": ways_of(artifact),
        "downloads": downloads_of(artifact.run.team, [artifact]).get(artifact.pk, 0),
        "whole_model": artifact.kind in KINDS,
        "form": form,
    }
    return render(request, "artifacts/detail.html", context, status=422 if form.errors else 200)
