"""Use case: an administrator makes a team and becomes its owner."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.utils.text import slugify

from jobs.errors import UserError
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Membership, Role, Team, User
from webapp.accounts.services.audit import record

SLUG_LENGTH = 40


def create_team(*, creator: User, name: str) -> Team:
    """A new team with `creator` as its owner.

    Raises `PermissionDenied` unless the person administers the site, `UserError("team_name_taken")`.
    """
    if not creator.is_superuser:
        raise PermissionDenied("Only an administrator of the site makes teams.")
    name = name.strip()
    slug = slugify(name)[:SLUG_LENGTH] or "team"
    with transaction.atomic():
        if Team.objects.filter(slug=slug).exists():
            raise UserError("team_name_taken", name=name, where={"field": "name"})
        team = Team.objects.create(name=name, slug=slug)
        Membership.objects.create(team=team, user=creator, role=Role.OWNER)
        record(Action.TEAM_CREATED, team=team, actor=creator, thing=team)
    return team
