"""Use case: write down who did what to which thing, and read it back. Events are added, never changed (`models.AuditEvent`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Model, QuerySet

from webapp.accounts.audit_actions import Action
from webapp.accounts.models import AuditEvent, Team, User
from webapp.core.client_address import client_address

_NAME_LENGTH = 200


def record(
    action: Action,
    *,
    team: Team | None,
    actor: User | str | None,
    thing: Model | None = None,
    name: str = "",
    detail: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """Writes one event; call it in the transaction of what it tells of.

    `actor` is a person, or the name of one; None is the site itself. `thing` is what it was done to: its class name in lower case, key and
    words are stored, so call before a deletion; `name` stands in for its words. `detail` is JSON: figures and names, never secrets.
    """
    event = AuditEvent(team=team, action=action, **_done_by(actor, detail), **_done_to(thing, name))
    event.save(force_insert=True)
    return event


def record_each(
    action: Action, *, team: Team, actor: User | str, things: Iterable[tuple[Model, str]], detail: Mapping[str, Any] | None = None
) -> None:
    """Writes one event for each thing, with its words, in one query; else as `record`."""
    who = _done_by(actor, detail)
    AuditEvent.objects.bulk_create(AuditEvent(team=team, action=action, **who, **_done_to(thing, name)) for thing, name in things)


def _done_by(actor: User | str | None, detail: Mapping[str, Any] | None) -> dict[str, Any]:
    user = User.objects.filter(username=actor).first() if isinstance(actor, str) else actor
    return {
        "actor": user,
        "actor_name": user.username if user else str(actor or ""),
        "address": client_address(),
        "detail": {**(detail or {}), **({"by": "API token"} if user is not None and user.only_team else {})},
    }


def _done_to(thing: Model | None, name: str) -> dict[str, str]:
    if thing is None:
        return {"object_name": name[:_NAME_LENGTH]}
    return {"object_type": str(thing._meta.model_name), "object_id": str(thing.pk), "object_name": (name or str(thing))[:_NAME_LENGTH]}


def record_of_person(action: Action, user: User, *, detail: Mapping[str, Any] | None = None) -> None:
    """Writes what happened to a person's account into the log of each of their teams; into that of the site for a person without one."""
    teams: list[Team | None] = [*Team.objects.filter(memberships__user=user)]
    for team in teams or [None]:
        record(action, team=team, actor=user, thing=user, detail=detail)


@dataclass(frozen=True)
class Wanted:
    """Which events are asked for: of one person (a name), of one action, from a moment (inclusive) to another (exclusive)."""

    person: str = ""
    action: str = ""
    start: datetime | None = None
    end: datetime | None = None


def events(team: Team, wanted: Wanted) -> QuerySet[AuditEvent]:
    """The events of a team, newest first."""
    rows = AuditEvent.objects.filter(team=team).order_by("-at", "pk")
    if wanted.person:
        rows = rows.filter(actor_name=wanted.person)
    if wanted.action:
        rows = rows.filter(action=wanted.action)
    if wanted.start:
        rows = rows.filter(at__gte=wanted.start)
    if wanted.end:
        rows = rows.filter(at__lt=wanted.end)
    return rows


def people(team: Team) -> list[str]:
    """The names that stand in the team's log."""
    return list(
        AuditEvent.objects.filter(team=team).exclude(actor_name="").order_by("actor_name").values_list("actor_name", flat=True).distinct()
    )
