"""The door of every WebSocket: nobody's socket reaches a consumer, as nobody's request reaches a page (`LoginRequiredMiddleware`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.models import Session
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from webapp.accounts.models import User
from webapp.core.body_limit import Application, Receive, Scope, Send
from webapp.core.middleware import refuse_socket
from webapp.core.together import Together

NO_ACCESS = 4404


def people(session_keys: Iterable[str]) -> dict[str, User]:
    """Who is signed in by these sessions now, by session key. As for pages, a new password ends the sessions that were opened with the old
    one, and an account that is closed ends all of its own.
    """
    rows = Session.objects.filter(session_key__in=set(session_keys), expire_date__gt=timezone.now())
    sessions = {row.session_key: row.get_decoded() for row in rows}
    ids = {body[SESSION_KEY] for body in sessions.values() if body.get(BACKEND_SESSION_KEY) in settings.AUTHENTICATION_BACKENDS}
    users = {str(user.pk): user for user in User.objects.filter(pk__in=ids, is_active=True)}
    hashes = {key: user.get_session_auth_hash() for key, user in users.items()}
    return {
        key: users[body[SESSION_KEY]]
        for key, body in sessions.items()
        if body.get(SESSION_KEY) in users and constant_time_compare(body.get(HASH_SESSION_KEY, ""), hashes[body[SESSION_KEY]])
    }


def _each(session_keys: Sequence[str]) -> list[User | None]:
    found = people(session_keys)
    return [found.get(key) for key in session_keys]


_PEOPLE = Together(_each)


class SignedInSockets:
    """Looks up who opens a socket, and refuses (HTTP 403) that of a visitor; stands behind the middleware that finds the session's key."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the socket on with its `user`, or closes it."""
        key = scope["session"].session_key
        user = await _PEOPLE.ask(key) if key else None
        if user is not None:
            await self.app({**scope, "user": user}, receive, send)
        else:
            await refuse_socket(receive, send, NO_ACCESS)
