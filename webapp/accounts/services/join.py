"""Use case: a person takes up an invitation."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from jobs.errors import UserError
from webapp.accounts.access import ACTIONS, rank, role_of
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Invitation, Membership, User
from webapp.accounts.secret import digest
from webapp.accounts.services.audit import record


def open_invitation(token: str) -> Invitation:
    """The invitation of a token, where it can still be used: while whoever made it could make it still, so that nobody leaves a way back
    for themselves. Raises `UserError("invitation_invalid")`.
    """
    invitation = (
        Invitation.objects.select_related("team", "created_by")
        .filter(token_sha256=digest(token), used_at=None, revoked_at=None, expires_at__gt=timezone.now())
        .first()
    )
    if invitation is None:
        raise UserError("invitation_invalid")
    inviter = role_of(invitation.created_by, invitation.team)
    if inviter is None or "manage" not in ACTIONS[inviter] or rank(invitation.role) > rank(inviter):
        raise UserError("invitation_invalid")
    return invitation


@transaction.atomic
def join(*, token: str, user: User) -> Membership:
    """Makes the person a member and spends the invitation: of two people with one link, one gets in.

    Raises `UserError`: `invitation_invalid`, or `already_member` (the invitation stays good for somebody else).
    """
    invitation = open_invitation(token)
    if Membership.objects.filter(team=invitation.team, user=user).exists():
        raise UserError("already_member", who=user.username)
    spent = Invitation.objects.filter(pk=invitation.pk, used_at=None, revoked_at=None).update(used_at=timezone.now(), used_by=user)
    if spent != 1:
        raise UserError("invitation_invalid")
    membership = Membership.objects.create(team=invitation.team, user=user, role=invitation.role)
    detail = {"role": invitation.role, "invited_by": invitation.created_by.username}
    record(Action.MEMBER_JOINED, team=invitation.team, actor=user, thing=user, detail=detail)
    return membership


@transaction.atomic
def sign_up(*, token: str, user: User) -> Membership:
    """Stores a new person (a `User` not saved yet, its password set) and lets them in, or neither. Raises `UserError` as `join`."""
    open_invitation(token)
    user.save()
    return join(token=token, user=user)
