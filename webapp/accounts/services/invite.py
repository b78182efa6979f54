"""Use cases: invite somebody by a link that is shown once, send it anew, revoke it."""

from __future__ import annotations

import secrets
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404
from django.utils import timezone

from jobs.errors import UserError
from webapp.accounts.access import rank, require
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Invitation, Role, Team, User
from webapp.accounts.secret import digest
from webapp.accounts.services.audit import record

VALID = timedelta(hours=72)


@transaction.atomic
def invite(*, team: Team, inviter: User, role: Role, email: str = "") -> str:
    """The token of a new invitation, which is stored nowhere. Raises `UserError("role_too_high")` for a role above the inviter's own."""
    _check_role(require(inviter, team, "manage"), role)
    token = secrets.token_urlsafe(32)
    invitation = Invitation.objects.create(
        team=team, role=role, email=email, token_sha256=digest(token), created_by=inviter, expires_at=timezone.now() + VALID
    )
    record(Action.INVITATION_SENT, team=team, actor=inviter, thing=invitation, name=email, detail={"role": role.value})
    return token


def open_invitations(team: Team) -> QuerySet[Invitation]:
    """Those that nobody has used or revoked, the newest first; an expired one can be renewed."""
    rows = Invitation.objects.filter(team=team, used_at=None, revoked_at=None)
    return rows.select_related("created_by").order_by("-created_at", "pk")


@transaction.atomic
def renew(*, team: Team, actor: User, invitation_id: UUID) -> tuple[Invitation, str]:
    """A new token with a new time in the place of the old one, which stops working. Raises `Http404`, `UserError("role_too_high")`."""
    own = require(actor, team, "manage")
    invitation = _one(team, invitation_id)
    _check_role(own, Role(invitation.role))
    token = secrets.token_urlsafe(32)
    changed = {"token_sha256": digest(token), "expires_at": timezone.now() + VALID, "created_by": actor}
    if open_invitations(team).filter(pk=invitation.pk).update(**changed) != 1:
        raise Http404
    record(Action.INVITATION_RENEWED, team=team, actor=actor, thing=invitation, name=invitation.email, detail={"role": invitation.role})
    return invitation, token


@transaction.atomic
def revoke(*, team: Team, actor: User, invitation_id: UUID) -> None:
    """Ends an invitation before its time. Raises `Http404`."""
    require(actor, team, "manage")
    invitation = _one(team, invitation_id)
    if open_invitations(team).filter(pk=invitation.pk).update(revoked_at=timezone.now()) != 1:
        raise Http404
    record(Action.INVITATION_REVOKED, team=team, actor=actor, thing=invitation, name=invitation.email, detail={"role": invitation.role})


def _one(team: Team, invitation_id: UUID) -> Invitation:
    invitation = open_invitations(team).filter(pk=invitation_id).first()
    if invitation is None:
        raise Http404
    return invitation


def _check_role(own: Role, role: Role) -> None:
    if rank(role) > rank(own):
        raise UserError("role_too_high", who="The new member", role=str(role.label).lower(), where={"field": "role"})
