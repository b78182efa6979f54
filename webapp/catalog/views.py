"""Pages of base models: the list, three ways of adding one, the page of one with what its team does with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.models import Team
from webapp.catalog.access import archived_models_of, get_base_model, models_of
from webapp.catalog.forms import AddForm, FolderForm, HubForm, LicenceForm, UploadForm
from webapp.catalog.models import BaseModel
from webapp.catalog.services import keep
from webapp.catalog.services.add_from_folder import add_from_folder, candidates, open_folders
from webapp.catalog.services.add_from_hub import add_from_hub
from webapp.catalog.services.add_from_upload import MOST_FILES, add_from_upload
from webapp.catalog.services.adding import try_again
from webapp.settings.env import ENV


@require_GET
def model_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The models that a team can start from, or with `?archived` those in its archive."""
    team = get_team(request.user, slug)
    enter(request, team)
    archived = "archived" in request.GET
    rows = archived_models_of(request.user, team) if archived else models_of(request.user, team)
    others = 0 if archived else len(archived_models_of(request.user, team))
    return render(request, "catalog/list.html", {"models": rows, "archived": archived, "archived_count": others})


def _hub(request: HttpRequest, team: Team) -> tuple[AddForm, Callable[[], BaseModel]]:
    form = HubForm(request.POST or None)
    return form, lambda: add_from_hub(team=team, user=signed_in(request), **form.cleaned_data)


def _folder(request: HttpRequest, team: Team) -> tuple[AddForm, Callable[[], BaseModel]]:
    form = FolderForm(request.POST or None, candidates=candidates())
    return form, lambda: add_from_folder(team=team, user=signed_in(request), **form.cleaned_data)


def _upload(request: HttpRequest, team: Team) -> tuple[AddForm, Callable[[], BaseModel]]:
    form = UploadForm(request.POST or None, request.FILES or None)

    def add() -> BaseModel:
        uploads = _ids(request.POST.getlist("uploads"))
        return add_from_upload(team=team, user=signed_in(request), uploads=uploads, **form.cleaned_data)

    return form, add


WAYS = {"hub": _hub, "folder": _folder, "upload": _upload}


@require_http_methods(["GET", "POST"])
def add(request: HttpRequest, slug: str, way: str) -> HttpResponse:
    """The form that adds a model in one of three ways."""
    if way not in WAYS:
        raise Http404
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    form, make = WAYS[way](request, team)
    if request.method == "POST" and form.is_valid():
        try:
            return redirect("catalog:detail", make().pk)
        except UserError as error:
            form.refuse(error)
    context: dict[str, Any] = {"form": form, "way": way, "endpoint": ENV.hub_endpoint, "folders_open": bool(open_folders())}
    context |= {"upload_limit": ENV.upload_limit_bytes, "request_limit": ENV.request_limit_bytes, "most_files": MOST_FILES}
    return render(request, "catalog/add.html", context, status=422 if form.errors else 200)


@require_GET
def detail(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """What is known of a model."""
    return _page(request, get_base_model(request.user, model_id))


@require_POST
def retry(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Adds a model again where that has failed; a download goes on where it was."""
    try_again(get_base_model(request.user, model_id, "launch"))
    return redirect("catalog:detail", model_id)


@require_POST
def licence(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Sets the licence."""
    model = get_base_model(request.user, model_id, "launch")
    form = LicenceForm(request.POST)
    if not form.is_valid():
        return _page(request, model, form=form)
    keep.set_licence(model, form.cleaned_data["licence"])
    return redirect("catalog:detail", model_id)


@require_POST
def archive(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Puts the model into the archive, or with `undo` takes it out again."""
    model = get_base_model(request.user, model_id, "launch")
    if "undo" in request.POST:
        keep.unarchive(model)
    else:
        keep.archive(model)
    return redirect("catalog:detail", model_id)


@require_POST
def delete(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Deletes a model that no run stands on; the name must be typed to confirm."""
    model = get_base_model(request.user, model_id, "manage")
    if request.POST.get("confirm", "").strip() != model.name or model.team is None:
        messages.error(request, _("Nothing was deleted: the name that you typed is not the model's name."))
        return redirect("catalog:detail", model_id)
    try:
        keep.delete(model, signed_in(request))
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
        return redirect("catalog:detail", model_id)
    messages.success(request, _("The model %(name)s was deleted.") % {"name": model.name})
    return redirect("catalog:list", model.team.slug)


def _page(request: HttpRequest, model: BaseModel, *, form: LicenceForm | None = None) -> HttpResponse:
    if model.team is not None:
        enter(request, model.team)
    form = form or LicenceForm(initial={"licence": model.licence})
    return render(request, "catalog/detail.html", {"model": model, "form": form}, status=422 if form.errors else 200)


def _ids(texts: list[str]) -> list[UUID]:
    """Those that are ids. Raises `UserError("upload_unknown")` where one is not."""
    try:
        return [UUID(text) for text in texts]
    except ValueError:
        raise UserError("upload_unknown", where={"field": "model_files"}) from None
