"""Use cases: make an API token, which is shown once, and revoke one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404
from django.utils import timezone

from webapp.accounts.access import can, require
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import ApiToken, Team, User
from webapp.accounts.scopes import Scope
from webapp.accounts.secret import digest
from webapp.accounts.services.audit import record

# So that a token that was left in a file is recognised as one.
PREFIX = "graft_"
_SHOWN = len(PREFIX) + 6


@transaction.atomic
def make_token(*, team: Team, user: User, name: str, scopes: Sequence[Scope], days: int | None) -> tuple[ApiToken, str]:
    """A new token of the person in the team, and its secret, which is stored nowhere. `days`: how long it holds, None for ever.

    Raises `Http404` for a stranger.
    """
    require(user, team, "view")
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        team=team,
        user=user,
        name=name.strip(),
        prefix=secret[:_SHOWN],
        sha256=digest(secret),
        scopes=[scope.value for scope in scopes],
        expires_at=None if days is None else timezone.now() + timedelta(days=days),
    )
    record(Action.TOKEN_CREATED, team=team, actor=user, thing=token, name=token.name, detail={"scopes": token.scopes, "days": days})
    return token, secret


def tokens_of(team: Team, user: User) -> QuerySet[ApiToken]:
    """The tokens that still stand: the person's own, and everybody's for whoever manages the team. The newest first."""
    rows = ApiToken.objects.filter(team=team, revoked_at=None).select_related("user").order_by("-created_at", "pk")
    return rows if can(user, team, "manage") else rows.filter(user=user)


@transaction.atomic
def revoke_token(*, team: Team, actor: User, token_id: UUID) -> ApiToken:
    """Ends a token at once: one's own, or anybody's for whoever manages the team. Raises `Http404`, `PermissionDenied`."""
    require(actor, team, "view")
    token = ApiToken.objects.filter(team=team, pk=token_id).select_related("user").first()
    if token is not None and token.user_id != actor.pk:
        require(actor, team, "manage")
    if token is None or ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()) != 1:
        raise Http404
    record(Action.TOKEN_REVOKED, team=team, actor=actor, thing=token, name=token.name, detail={"of": token.user.username})
    return token
