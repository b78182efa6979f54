"""Use cases: change a member's role, remove a member, hand the team over.

Nobody acts above their own role, and no team loses its last owner.
"""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.http import Http404
from django.utils import timezone

from jobs.errors import UserError
from webapp.accounts.access import rank, require
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import ApiToken, Membership, Role, Team, User
from webapp.accounts.services.audit import record


@transaction.atomic
def change_role(*, team: Team, actor: User, membership_id: UUID, role: Role) -> Membership:
    """Gives a member another role. Raises `UserError`: `role_too_high` (the member's or the new role), `last_owner`."""
    own = require(actor, team, "manage")
    membership = _locked(team, membership_id)
    _not_above(own, Role(membership.role), membership.user.username)
    _not_above(own, role, "The new role")
    if role != Role.OWNER:
        _not_last_owner(membership)
    before, membership.role = membership.role, role
    membership.save(update_fields=["role"])
    detail = {"from": before, "to": role.value}
    record(Action.MEMBER_ROLE, team=team, actor=actor, thing=membership.user, detail=detail)
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
    action = Action.MEMBER_LEFT if membership.user_id == actor.pk else Action.MEMBER_REMOVED
    record(action, team=team, actor=actor, thing=membership.user, detail={"role": membership.role})
    # What acts in the person's name goes with them.
    ApiToken.objects.filter(team=team, user=membership.user, revoked_at=None).update(revoked_at=timezone.now())
    membership.delete()


@transaction.atomic
def hand_over(*, team: Team, actor: User, membership_id: UUID) -> Membership:
    """Makes another member owner and the acting owner a maintainer. Raises `UserError("already_owner")`, `PermissionDenied`, `Http404`."""
    require(actor, team, "own")
    heir = _locked(team, membership_id)
    if heir.role == Role.OWNER:
        raise UserError("already_owner", who=heir.user.username, where={"field": "member"})
    Membership.objects.filter(pk=heir.pk).update(role=Role.OWNER)
    Membership.objects.filter(team=team, user=actor).update(role=Role.MAINTAINER)
    record(Action.OWNERSHIP, team=team, actor=actor, thing=heir.user, detail={"from": actor.username})
    return heir


def _locked(team: Team, membership_id: UUID) -> Membership:
    """The membership, with the team's row locked, so that two owners cannot remove one another at once."""
    Team.objects.select_for_update().get(pk=team.pk)
    membership = Membership.objects.select_related("user").filter(team=team, pk=membership_id).first()
    if membership is None:
        raise Http404
    return membership


def _not_above(own: Role, other: Role, who: str) -> None:
    if rank(other) > rank(own):
        raise UserError("role_too_high", who=who, role=str(other.label).lower())


def _not_last_owner(membership: Membership) -> None:
    others = Membership.objects.filter(team_id=membership.team_id, role=Role.OWNER).exclude(pk=membership.pk)
    if membership.role == Role.OWNER and not others.exists():
        raise UserError("last_owner", who=membership.user.username)
