"""The page that compares runs, and its table as a file."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.text import slugify
from django.views.decorators.http import require_GET

from webapp.accounts.access import enter, get_team
from webapp.runs.compare.page import FORMATS, comparison, export, page_of


@require_GET
def compare(request: HttpRequest, slug: str) -> HttpResponse:
    """Runs of the team side by side; what changes by itself alone where htmx asks for it."""
    team = get_team(request.user, slug)
    enter(request, team)
    template = "runs/compare/_figures.html" if request.headers.get("HX-Request") else "runs/compare/page.html"
    return render(request, template, page_of(comparison(team, request.GET)))


@require_GET
def compare_export(request: HttpRequest, slug: str, form: str) -> HttpResponse:
    """The table of results as a file: `csv`, `md` or `tex`."""
    team = get_team(request.user, slug)
    if form not in FORMATS:
        raise Http404
    body = export(comparison(team, request.GET), form)
    headers = {"Content-Disposition": f'attachment; filename="{slugify(team.slug)}-runs.{form}"'}
    return HttpResponse(body, content_type=f"{FORMATS[form]}; charset=utf-8", headers=headers)
