"""Use cases: change a member's role, remove a member. Nobody acts above their own role, and no team loses its last owner."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.http import Http404

from jobs.errors import UserError
from webapp.accounts.access import rank, require
from webapp.accounts.models import Membership, Role, Team, User


@transaction.atomic
def change_role(*, team: Team, actor: User, membership_id: UUID, role: Role) -> Membership:
    """Gives a member another role. Raises `UserError`: `role_too_high` (the member's or the new role), `last_owner`."""
    own = require(actor, team, "manage")
    membership = _locked(team, membership_id)
    _not_above(own, Role(membership.role), membership.user.username)
    _not_above(own, role, "The new role")
    if role != Role.OWNER:
        _not_last_owner(membership)
    membership.role = role
    membership.save(update_fields=["role"])
    return membership


@transaction.atomic
def remove_member(*, team: Team, actor: User, membership_id: UUID) -> None:
    """Takes a person out of the team; anybody may leave. Raises `UserError`: `role_too_high`, `last_owner`; `PermissionDenied`."""
    own = require(actor, team, "view")
    membership = _locked(team, membership_id)
    if membership.user_id != actor.pk:
        require(actor, team, "manage")
        _not_above(own, Role(membership.role), membership.user.username)
    _not_last_owner(membership)
    membership.delete()


def _locked(team: Team, membership_id: UUID) -> Membership:
    """The membership, with the team's row locked, so that two owners cannot remove one another at once."""
    Team.objects.select_for_update().get(pk=team.pk)
    membership = Membership.objects.select_related("user").filter(team=team, pk=membership_id).first()
    if membership is None:
        raise Http404
    return membership


def _not_above(own: Role, other: Role, who: str) -> None:
    if rank(other) > rank(own):
        raise UserError("role_too_high", who=who, role=other.label.lower())


def _not_last_owner(membership: Membership) -> None:
    others = Membership.objects.filter(team_id=membership.team_id, role=Role.OWNER).exclude(pk=membership.pk)
    if membership.role == Role.OWNER and not others.exists():
        raise UserError("last_owner", who=membership.user.username)
