"""No request body larger than its path allows gets past this door.

Django spools a request's whole body to a temporary file before a view is asked, with no cap, so the cap stands in front of Django.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from django.conf import settings

from webapp.settings.env import ENV

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# Where tus parts go (webapp.datasets.urls).
_PART = re.compile(r"^/uploads/[^/]+/?$")
# How much of a refused body is thrown away, so that the client reads the answer instead of a reset connection.
_LINGER_BYTES = 4 * 2**20
_LINGER_SECONDS = 2.0


class _TooLarge(Exception):
    """The body that is being read has passed its limit."""


class BodyLimit:
    """ASGI middleware: 413 for a body over the limit of its path, by its Content-Length and by counting what arrives.

    The limit is `request_limit_bytes`; one part of an upload (tus PATCH), sent with a session cookie, may have `chunk_limit_bytes`.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        limit = body_limit(scope["method"], scope["path"], headers.get(b"cookie", b""))
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit():
            return await _refuse(400, "Content-Length must be a number.", receive, send)
        if int(declared) > limit:
            return await _refuse(413, _words(limit), receive, send)
        return await self._counted(limit, scope, receive, send)

    async def _counted(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        total = 0
        started = False

        async def count() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                raise _TooLarge
            return message

        async def note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, count, note)
        except _TooLarge:
            # Once an answer has begun there is no second one; the server closes the connection of an answer that was cut.
            if not started:
                await _refuse(413, _words(limit), receive, send)


def body_limit(method: str, path: str, cookies: bytes) -> int:
    """How many bytes the body of such a request may have."""
    if method == "PATCH" and _PART.match(path) and f"{settings.SESSION_COOKIE_NAME}=".encode() in cookies:
        return ENV.chunk_limit_bytes
    return ENV.request_limit_bytes


def _words(limit: int) -> str:
    return f"The request is larger than the {limit} bytes allowed here."


async def _refuse(status: int, text: str, receive: Receive, send: Send) -> None:
    body = (text + "\n").encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    # A client that asked first (Expect: 100-continue) sends nothing now; for the others the answer is on its way while we read on.
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            await _discard(receive, _LINGER_BYTES)
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive, limit: int) -> None:
    total = 0
    while total <= limit:
        message = await receive()
        total += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
