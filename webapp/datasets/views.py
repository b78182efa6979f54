"""Pages of datasets: the list, new files, the mapping with its preview, the report."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Count, Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from jobs.errors import GraftError, UserError
from jobs.spec import Mapping
from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.models import Team
from webapp.core.progress import standing
from webapp.datasets.access import get_dataset, get_version
from webapp.datasets.copies import totals
from webapp.datasets.forms import DatasetForm, FilesForm, MappingForm
from webapp.datasets.mapping import LAYOUTS, recognised_mapping, suggestion
from webapp.datasets.models import DatasetVersion
from webapp.datasets.problems import kinds
from webapp.datasets.services.create_dataset import SPLITS, add_version, create_dataset
from webapp.datasets.services.preview import preview as preview_rows
from webapp.datasets.services.start_validation import OPEN, again_without_bad_rows, start_validation
from webapp.datasets.services.store_file import store_file
from webapp.settings.env import ENV

State = DatasetVersion.State


@require_GET
def dataset_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The datasets of a team, each with its newest version."""
    team = get_team(request.user, slug)
    enter(request, team)
    newest_first = Prefetch("versions", DatasetVersion.objects.order_by("-number").annotate(run_count=Count("runs")))
    rows = team.datasets.select_related("created_by").prefetch_related(newest_first).order_by("-created_at")
    return render(request, "datasets/list.html", {"datasets": rows})


@require_http_methods(["GET", "POST"])
def new_dataset(request: HttpRequest, slug: str) -> HttpResponse:
    """A new dataset: a name and its files."""
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    form = DatasetForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            uploads = _uploads(request, team, form)
            version = create_dataset(team=team, user=signed_in(request), name=form.cleaned_data["name"].strip(), uploads=uploads)
            return redirect("datasets:version", version.pk)
        except UserError as error:
            form.refuse(error)
    return _files_page(request, form, {"title": _("New dataset")})


@require_http_methods(["GET", "POST"])
def new_version(request: HttpRequest, dataset_id: UUID) -> HttpResponse:
    """New files for a dataset that is there."""
    dataset = get_dataset(request.user, dataset_id, "launch")
    enter(request, dataset.team)
    form = FilesForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            uploads = _uploads(request, dataset.team, form)
            return redirect("datasets:version", add_version(dataset=dataset, user=signed_in(request), uploads=uploads).pk)
        except UserError as error:
            form.refuse(error)
    return _files_page(request, form, {"title": _("New version of %(name)s") % {"name": dataset.name}, "dataset": dataset})


def _files_page(request: HttpRequest, form: FilesForm, context: dict[str, Any]) -> HttpResponse:
    limits = {"upload_limit": ENV.upload_limit_bytes, "request_limit": ENV.request_limit_bytes}
    return render(request, "datasets/new.html", {"form": form, **limits, **context}, status=422 if form.errors else 200)


def _uploads(request: HttpRequest, team: Team, form: FilesForm) -> dict[str, UUID]:
    """The upload of each split: a file that came with the form is stored now."""
    uploads: dict[str, UUID] = {}
    for split in SPLITS:
        file, known = form.cleaned_data.get(f"{split}_file"), form.cleaned_data.get(f"{split}_upload")
        if file:
            try:
                stored = store_file(team=team, user=signed_in(request), filename=file.name, bytes_total=file.size, source=file)
            except UserError as error:
                error.where = {**error.where, "field": split}
                raise
            uploads[split] = stored.pk
        elif known:
            uploads[split] = known
    return uploads


@require_GET
def detail(request: HttpRequest, dataset_id: UUID) -> HttpResponse:
    """A dataset and its versions."""
    dataset = get_dataset(request.user, dataset_id)
    enter(request, dataset.team)
    versions = dataset.versions.select_related("created_by").annotate(run_count=Count("runs")).order_by("-number")
    return render(request, "datasets/detail.html", {"dataset": dataset, "versions": versions})


@require_GET
def version(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """A version: while it is a draft the mapping, then the report."""
    return _version_page(request, get_version(request.user, version_id))


@require_POST
def preview(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """The rows as the form would make them: a part of the page for htmx, the whole page otherwise."""
    row = get_version(request.user, version_id, "launch")
    form = MappingForm(request.POST, version=row)
    valid = form.is_valid()
    rows = _preview(row, form.mapping() if valid else None, _whole(request.POST.get("skip")))
    if request.headers.get("HX-Request"):
        return render(request, "datasets/_preview.html", {"preview": rows, "form": form, "live": True})
    return _version_page(request, row, form=form, preview=rows)


@require_POST
def validate(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """Settles the mapping and has every row read."""
    row = get_version(request.user, version_id, "launch")
    form = MappingForm(request.POST, version=row)
    if not form.is_valid():
        return _version_page(request, row, form=form, status=422)
    try:
        start_validation(row, form.choices())
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    return redirect("datasets:version", row.pk)


@require_POST
def skip_bad_rows(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """Reads every row again by the same mapping, leaving out those that cannot be used."""
    row = get_version(request.user, version_id, "launch")
    try:
        again_without_bad_rows(row)
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    return redirect("datasets:version", row.pk)


def _version_page(
    request: HttpRequest, row: DatasetVersion, *, form: MappingForm | None = None, preview: dict[str, Any] | None = None, status: int = 200
) -> HttpResponse:
    enter(request, row.dataset.team)
    context: dict[str, Any] = {"version": row, "dataset": row.dataset, "report": row.report, "tab": "report"}
    context |= {"standing": standing(row.progress), "totals": totals(row), "kinds": kinds(row)}
    if row.mapping:
        context["layout"] = LAYOUTS[row.mapping["format"]].name
    if row.state in OPEN:
        context["form"] = form or MappingForm(version=row)
        context["suggestion"] = suggestion(row)
        context["preview"] = preview if preview is not None else _preview(row, recognised_mapping(row), 0)
    return render(request, "datasets/version.html", context, status=status)


def _preview(row: DatasetVersion, mapping: Mapping | None, skip: int) -> dict[str, Any]:
    """The preview, or in its place the error."""
    if mapping is None:
        return {}
    try:
        return preview_rows(row, mapping, skip=skip)
    except GraftError as error:
        return {"error": error}


def _whole(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0
