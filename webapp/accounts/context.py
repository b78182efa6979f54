"""What every page shows of the current team (the frame around the page: switcher, counts)."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Q
from django.http import HttpRequest

from webapp.accounts.access import ACTIONS, current_team, enter, role_of, teams_of
from webapp.accounts.models import Team


def team(request: HttpRequest) -> dict[str, Any]:
    """The current team, the person's role in it and what it allows, all teams of the person, and how much the team holds.

    Names in templates: `team`, `teams`, `role`, `may` (a set of actions: `{% if "launch" in may %}`), `counts`
    (`datasets`, `models`, `runs`, `members`). Absent for a visitor; `team` is None for a person without a team.
    """
    if not getattr(request, "user", None) or not request.user.is_authenticated:
        return {}
    current = current_team(request)
    role = role_of(request.user, current) if current else None
    if current is None or role is None:
        return {"team": None, "teams": list(teams_of(request.user)), "role": None, "may": frozenset(), "counts": {}}
    enter(request, current)
    return {
        "team": current,
        "teams": list(teams_of(request.user)),
        "role": role,
        "may": ACTIONS[role],
        "counts": _counts(current),
    }


def mail(request: HttpRequest) -> dict[str, Any]:
    """`mail`: whether the site can send e-mail."""
    return {"mail": settings.GRAFT_EMAIL}


def _counts(current: Team) -> dict[str, int]:
    """By reverse relation, since the apps that hold these rows stand above this one. Models of the site count for every team."""
    models = current.base_models.model._default_manager.filter(Q(team=current) | Q(team=None))
    return {
        "datasets": current.datasets.count(),
        "models": models.count(),
        "runs": current.runs.count(),
        "members": current.memberships.count(),
    }
