"""Use case: invite somebody by a link that is shown once."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.utils import timezone

from jobs.errors import UserError
from webapp.accounts.access import rank, require
from webapp.accounts.models import Invitation, Role, Team, User

VALID = timedelta(hours=72)


def digest(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def invite(*, team: Team, inviter: User, role: Role) -> str:
    """The token of a new invitation, which is stored nowhere. Raises `UserError("role_too_high")` for a role above the inviter's own."""
    own = require(inviter, team, "manage")
    if rank(role) > rank(own):
        raise UserError("role_too_high", who="The new member", role=role.label.lower(), where={"field": "role"})
    token = secrets.token_urlsafe(32)
    Invitation.objects.create(team=team, role=role, token_sha256=digest(token), created_by=inviter, expires_at=timezone.now() + VALID)
    return token
