"""Use cases: rename a team; ask a second factor of everybody in it."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
from django.db import transaction

from jobs.errors import UserError
from webapp.accounts.access import SECOND_FACTORS, require
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team, User
from webapp.accounts.services.audit import record


@transaction.atomic
def rename_team(*, team: Team, actor: User, name: str) -> None:
    """Gives the team another name; the slug, which stands in addresses, stays. Raises `PermissionDenied`."""
    require(actor, team, "own")
    before, team.name = team.name, name.strip()
    team.save(update_fields=["name"])
    record(Action.TEAM_RENAMED, team=team, actor=actor, thing=team, detail={"from": before})


@transaction.atomic
def require_two_factor(*, team: Team, actor: User, required: bool) -> None:
    """Opens the team only to people with a second factor, or to all again.

    Raises `UserError("two_factor_first")` where the actor has none and would lock themselves out, `PermissionDenied`.
    """
    require(actor, team, "own")
    if required and not Authenticator.objects.filter(user=actor, type__in=SECOND_FACTORS).exists():
        raise UserError("two_factor_first")
    team.require_two_factor = required
    team.save(update_fields=["require_two_factor"])
    record(Action.TWO_FACTOR_REQUIRED, team=team, actor=actor, thing=team, detail={"required": required})


def without_two_factor(team: Team) -> list[str]:
    """The names of the members who have no second factor."""
    secured = Authenticator.objects.filter(type__in=SECOND_FACTORS).values("user")
    return list(User.objects.filter(memberships__team=team).exclude(pk__in=secured).order_by("username").values_list("username", flat=True))
