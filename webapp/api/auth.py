"""Who asks: an API token, and nothing else. A session's cookie opens nothing under /v1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from webapp.accounts.access import roles
from webapp.accounts.bearer import authenticate, require_scope
from webapp.accounts.models import ApiToken, Team, User
from webapp.accounts.scopes import Scope
from webapp.api.errors import ApiError
from webapp.api.limits import count_request


@dataclass(frozen=True)
class Caller:
    """A token with its maker, whose rights end at the token's team."""

    user: User
    team: Team
    token: ApiToken


class needs:  # noqa: N801 - it reads as a word where it stands: auth=needs(Scope.RUNS_READ)
    """ninja's `auth` of an operation: lets a token with the scope in, as `request.auth`. Raises `TokenRefused` and `ApiError`."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.openapi_security_schema = {"type": "http", "scheme": "bearer"}

    def __call__(self, request: HttpRequest) -> Caller:
        """The caller; `request.user` is its user."""
        token = authenticate(request)
        if token is None:
            words = "You didn't provide an API key. Send it in the header 'Authorization: Bearer graft_...'; a team's pages make one."
            raise ApiError(401, words, code="missing_api_key", headers={"WWW-Authenticate": "Bearer"})
        count_request(request, token)
        require_scope(token, self.scope)
        if not roles([token.user], [token.team_id]):
            # Who made the token has left the team, or has no second factor where it asks for one.
            raise ApiError(401, "The API key's maker has no access to its team any more.", code="invalid_api_key")
        request.user = token.user
        return Caller(token.user, token.team, token)


class needs_async(needs):  # noqa: N801
    """The same for operations that are coroutines."""

    async def __call__(self, request: HttpRequest) -> Caller:  # type: ignore[override]
        """The caller, asked for in a thread of its own."""
        ask: Callable[[HttpRequest], Caller] = super().__call__
        return await sync_to_async(ask)(request)
