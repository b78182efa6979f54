"""Who asks: an API token in place of a session, where the request came from, when a session was last used, a second factor that is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _

from webapp.accounts.access import needs_two_factor
from webapp.accounts.bearer import TokenRefused, authenticate, require_scope
from webapp.accounts.models import User
from webapp.core.client_address import remember_address

# How often the last use of a session is written down.
SEEN_SECONDS = 300
_SEEN = "seen_at"


class TokenMiddleware(MiddlewareMixin):
    """Lets an API token in where the view takes it (`bearer.takes_token`); it stands before the middleware that asks for a session."""

    def process_view(self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any) -> HttpResponse | None:
        """Answers a token that opens nothing here; None goes on to the view."""
        remember_address(request)
        if "Authorization" not in request.headers or getattr(view, "asks_itself", False):
            return None
        try:
            token = authenticate(request)
            if token is None:
                return None
            scope = getattr(view, "token_scope", None)
            if scope is None:
                raise TokenRefused(403, "insufficient_scope", _("This address takes no API token."))
            require_scope(token, scope)
        except TokenRefused as refused:
            return refused.response()
        request.user = token.user
        return None


class PersonMiddleware(MiddlewareMixin):
    """Keeps the sessions page true, and leads a person whom a team asks for a second factor to where it is set up."""

    def process_view(self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Writes down, now and then, that the session is in use."""
        # A token has no session; one that comes beside a session's cookie is not what uses it.
        if not isinstance(request.user, User) or request.user.only_team is not None or not request.session.session_key:
            return
        now = time.time()
        if now - request.session.get(_SEEN, 0) > SEEN_SECONDS:
            request.session[_SEEN] = now
            UserSession.objects.create_from_request(request)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """A page that was refused for want of a second factor leads to its set-up; data and parts of pages stay refused."""
        if response.status_code not in (403, 404) or request.method != "GET" or not hasattr(request, "user"):
            return response
        by_hand = "Authorization" not in request.headers and "text/html" in request.headers.get("Accept", "text/html")
        if not by_hand or not needs_two_factor(request.user):
            return response
        messages.warning(request, _("Your team asks everybody for a second factor at sign-in. Set it up here, then go on."))
        return redirect("mfa_index")
