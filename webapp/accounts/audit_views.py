"""The page of a team's audit log, and the log as CSV."""

from __future__ import annotations

import csv
import json

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from webapp.accounts.access import enter, get_team
from webapp.accounts.audit_actions import Action
from webapp.accounts.forms import AuditForm
from webapp.accounts.models import AuditEvent
from webapp.accounts.services.audit import Wanted, events, people
from webapp.core.spreadsheet import harmless

PAGE = 50
COLUMNS = ("at", "person", "action", "object_type", "object_id", "object_name", "address", "detail")


@require_GET
def audit(request: HttpRequest, slug: str) -> HttpResponse:
    """The events, newest first, of whom, what and when `?person=`, `?action=`, `?start=`, `?end=` (days) ask for."""
    team = get_team(request.user, slug, "manage")
    enter(request, team)
    form = AuditForm(request.GET, people=people(team))
    page = Paginator(events(team, form.wanted()), PAGE).get_page(request.GET.get("page"))
    query = request.GET.copy()
    query.pop("page", None)
    rows = [{"event": event, "words": _words(event), "detail": _detail(event)} for event in page]
    context = {"form": form, "page": page, "rows": rows, "query": query.urlencode()}
    return render(request, "accounts/audit.html", context, status=422 if form.errors else 200)


@require_GET
def audit_csv(request: HttpRequest, slug: str) -> HttpResponse:
    """All events that the same parameters ask for, as CSV in UTF-8; times are UTC."""
    team = get_team(request.user, slug, "manage")
    form = AuditForm(request.GET, people=people(team))
    wanted = form.wanted() if form.is_valid() else Wanted()
    name = f"audit-{team.slug}-{timezone.now():%Y-%m-%d}.csv"
    response = HttpResponse(content_type="text/csv; charset=utf-8", headers={"Content-Disposition": f'attachment; filename="{name}"'})
    writer = csv.writer(response)
    writer.writerow(COLUMNS)
    for event in events(team, wanted).iterator():
        detail = json.dumps(event.detail, sort_keys=True, ensure_ascii=False) if event.detail else ""
        cells = (event.actor_name, event.action, event.object_type, event.object_id, event.object_name, event.address or "", detail)
        writer.writerow([event.at.isoformat(), *map(harmless, cells)])
    return response


def _words(event: AuditEvent) -> str:
    return str(Action(event.action).label) if event.action in Action.values else event.action


def _detail(event: AuditEvent) -> str:
    return ", ".join(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in event.detail.items())
