"""Pages of the data check for a base model: a row as the model sees it, and how long the rows are in its tokens."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_POST

from jobs.data.check_files import kept_lines
from jobs.errors import GraftError
from webapp.accounts.access import enter
from webapp.catalog.access import models_of
from webapp.catalog.models import BaseModel
from webapp.checks.forms import Question, question, visible
from webapp.checks.lengths import HEIGHT, WIDTH, Lengths
from webapp.checks.models import Survey
from webapp.checks.services.see import see_row
from webapp.checks.services.survey import ask_survey
from webapp.core.progress import standing
from webapp.datasets.access import get_version
from webapp.datasets.models import DatasetVersion

State = DatasetVersion.State


@require_GET
def rows(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """One row, rendered by the model's template, as tokens, or raw."""
    version = _ready(request, version_id)
    models = _models(request, version)
    asked = question(request.GET, version, models)
    context: dict[str, Any] = {"asked": asked, "models": models, "line": _line(version, asked), "same": _without_row(request)}
    if asked.model is not None:
        try:
            context["seen"] = see_row(version, asked.model, asked.split, asked.row - 1, loss_on=asked.loss_on, max_length=asked.maximum)
        except GraftError as error:
            context["error"] = error
        else:
            for token in context["seen"]["tokens"]:
                token["shown"] = visible(token["text"])
    return render(request, "checks/rows.html", _with(version, "rows", context))


@require_GET
def lengths(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """How long the training rows are, and what a maximum cuts off."""
    version = _ready(request, version_id)
    models = _models(request, version)
    asked = question(request.GET, version, models)
    survey = Survey.objects.filter(version=version, base_model=asked.model, loss_on=asked.loss_on).first()
    context: dict[str, Any] = {"asked": asked, "models": models, "survey": survey}
    if survey is not None:
        context["standing"] = standing(survey.progress)
    if survey is not None and survey.state == Survey.State.DONE:
        found = Lengths.of(survey.result)
        maximum = asked.maximum or found.recommended
        context |= {"found": found, "cut": found.cut_at(maximum), "bars": found.bars(maximum), "width": WIDTH, "height": HEIGHT}
        context["percentiles"] = [(percent, found.percentile(percent / 100)) for percent in (50, 75, 90, 95, 99, 100)]
    return render(request, "checks/lengths.html", _with(version, "lengths", context))


@require_POST
def measure(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """Has the rows measured for a model."""
    version = get_version(request.user, version_id, "launch")
    asked = question(request.POST, version, _models(request, version)) if version.rows("train") else None
    if asked is None or asked.model is None or version.state != State.READY:
        messages.error(request, gettext("There are no rows, or no model, to measure."))
        return redirect("datasets:version", version.pk)
    ask_survey(version, asked.model, asked.loss_on)
    query = urlencode({"model": str(asked.model.pk), "loss_on": asked.loss_on})
    return redirect(f"{reverse('checks:lengths', args=[version.pk])}?{query}")


def _ready(request: HttpRequest, version_id: UUID) -> DatasetVersion:
    """A version whose rows can be looked at. Raises `Http404` for any other."""
    version = get_version(request.user, version_id)
    enter(request, version.dataset.team)
    if version.state != State.READY or not version.rows("train"):
        raise Http404
    return version


def _models(request: HttpRequest, version: DatasetVersion) -> list[BaseModel]:
    """The models that a row can be looked at with."""
    return [model for model in models_of(request.user, version.dataset.team) if model.state == BaseModel.State.READY]


def _line(version: DatasetVersion, asked: Question) -> int | None:
    """Where the row stood in the file that came."""
    lines = kept_lines(version.check_folder, asked.split)
    return int(lines[asked.row - 1]) if lines is not None and asked.row <= len(lines) else None


def _with(version: DatasetVersion, tab: str, context: dict[str, Any]) -> dict[str, Any]:
    return {"version": version, "dataset": version.dataset, "report": version.report, "tab": tab, **context}


def _without_row(request: HttpRequest) -> str:
    """The query string without the row, to put another behind it."""
    query = request.GET.copy()
    query.pop("row", None)
    return f"{query.urlencode()}&" if query else ""
