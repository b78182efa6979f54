"""The one place where an API token (`Authorization: Bearer graft_...`) is checked.

A view of the pages takes tokens when it is marked with `takes_token`; any other API calls `authenticate` and `require_scope` itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from django.db.models import Q
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.accounts.models import ApiToken
from webapp.accounts.scopes import Scope
from webapp.accounts.secret import digest
from webapp.core.client_address import client_address

# How often the last use is written down.
USE_SECONDS = 60
_View = TypeVar("_View", bound=Callable[..., Any])


class TokenRefused(Exception):
    """A token that opens nothing here: `status` 401 (not known, expired, revoked) or 403 (without the scope)."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def response(self) -> JsonResponse:
        """The refusal as JSON, with the header that RFC 6750 asks for."""
        headers = {"WWW-Authenticate": f'Bearer error="{self.code}"'}
        return JsonResponse({"error": {"code": self.code, "message": self.message}}, status=self.status, headers=headers)


def authenticate(request: HttpRequest) -> ApiToken | None:
    """The token of the request, None where it has none; its `user` has rights in the token's team alone. Raises `TokenRefused`."""
    scheme, _space, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = ApiToken.objects.select_related("user", "team").filter(sha256=digest(secret.strip()), revoked_at=None).first()
    if token is None or token.expired or not token.user.is_active:
        raise TokenRefused(
            401, "invalid_token", _("The API token is not known, has expired or was revoked. Make another on the team's pages.")
        )
    token.user.only_team = token.team_id
    _note_use(token)
    return token


def is_open(header: str) -> bool:
    """Whether an `Authorization` header names a token that opens something, whatever it is."""
    request = HttpRequest()
    request.META["HTTP_AUTHORIZATION"] = header
    try:
        return authenticate(request) is not None
    except TokenRefused:
        return False


def require_scope(token: ApiToken, scope: Scope) -> None:
    """Raises `TokenRefused` for a token without the scope."""
    if scope not in token.scopes:
        raise TokenRefused(
            403, "insufficient_scope", _("This needs the scope %(scope)s, which the token does not have.") % {"scope": scope.value}
        )


def takes_token(scope: Scope) -> Callable[[_View], _View]:
    """Marks a view that a token with the scope opens, as a session does (`middleware.TokenMiddleware`)."""

    def mark(view: _View) -> _View:
        view.token_scope = scope  # type: ignore[attr-defined]
        return view

    return mark


def _note_use(token: ApiToken) -> None:
    now = timezone.now()
    due = Q(last_used_at=None) | Q(last_used_at__lt=now - timedelta(seconds=USE_SECONDS))
    if token.last_used_at is None or token.last_used_at < now - timedelta(seconds=USE_SECONDS):
        ApiToken.objects.filter(due, pk=token.pk).update(last_used_at=now, last_used_from=client_address())
