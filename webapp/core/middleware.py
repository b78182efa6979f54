"""ASGI middleware: what every answer says to the browser, and which WebSockets are opened."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain

from webapp.core.body_limit import Application, Message, Receive, Scope, Send
from webapp.settings.env import ENV

# For answers that no page of ours made: a file, a refusal, a probe. They may do nothing in a browser, and nobody shows them in a frame.
_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
)


class SecureHeaders:
    """Gives every answer, whoever made it, the headers that bound what a browser does with it, where it has none of its own."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                names = {name.lower() for name, _value in own}
                message = {**message, "headers": own + [header for header in _HEADERS if header[0] not in names]}
            await send(message)

        await self.app(scope, receive, add)


class SameOrigin:
    """Refuses (HTTP 403) a WebSocket that a page of another site opens: the browser sends the session's cookie along with it.

    As with forms, the Origin is that of the site: the request's own Host, which must be one of ALLOWED_HOSTS, or in
    CSRF_TRUSTED_ORIGINS. Another port of the same host is another site: who serves it shares our cookies, and not our pages.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the socket on, or closes it."""
        if is_same_origin(scope):
            await self.app(scope, receive, send)
        else:
            await refuse_socket(receive, send, 4403)


def is_same_origin(scope: Scope) -> bool:
    """Whether the request says one Host and one Origin, and they belong together."""
    origins = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"origin"]
    hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
    if len(origins) != 1 or len(hosts) != 1 or not validate_host(split_domain_port(hosts[0])[0], settings.ALLOWED_HOSTS):
        return False
    schemes = ("https",) if settings.SESSION_COOKIE_SECURE else ("http", "https")
    own = [f"{scheme}://{hosts[0]}" for scheme in schemes]
    return origins[0] in own or any(_matches(origins[0], trusted.lower()) for trusted in settings.CSRF_TRUSTED_ORIGINS)


def _matches(origin: str, trusted: str) -> bool:
    """Whether the origin is the trusted one; `https://*.example.com` stands for every name below, as in Django's check of forms."""
    if "*" not in trusted:
        return origin == trusted
    scheme, _, rest = trusted.partition("://")
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme == scheme and is_same_domain(parts.netloc, rest.lstrip("*"))


async def refuse_socket(receive: Receive, send: Send, code: int) -> None:
    """Closes a WebSocket before it is open, which the client sees as HTTP 403."""
    await receive()
    await send({"type": "websocket.close", "code": code})


class ConnectionLimit:
    """Refuses (HTTP 403) a WebSocket over `sockets_per_process`, before its session is looked up.

    The limit for one person is kept by the consumer, which knows who it is.
    """

    def __init__(self, app: Application, limit: int | None = None) -> None:
        self.app = app
        self.limit = ENV.sockets_per_process if limit is None else limit
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts the socket for as long as it is open."""
        if self.open >= self.limit:
            await refuse_socket(receive, send, 4429)
            return
        self.open += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.open -= 1
