"""No request body larger than its path allows, or slower than anybody's line, gets past this door.

Django spools a request's whole body to a temporary file before a view is asked, with no cap, so the cap stands in front of Django.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DatabaseError
from django.http import parse_cookie
from django.utils.module_loading import import_string

from webapp.settings.env import ENV

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# Where tus parts go (webapp.datasets.urls).
_PART = re.compile(r"^/uploads/[^/]+/?$")
# Where the API takes files whole and in parts (webapp.files): OpenAI's limits, and room for what multipart writes around them.
_API_BYTES = ((re.compile(r"^/v1/files$"), 512 * 2**20), (re.compile(r"^/v1/uploads/[^/]+/parts$"), 64 * 2**20))
_AROUND = 64 * 2**10
# What the bodies that one process is reading may come to: each lies in memory or in a temporary file until its view is done.
HELD_BYTES = 1024 * 2**20
# A body must come within this time, and at this rate after it.
PATIENCE_SECONDS = 20.0
SLOWEST_BYTES_PER_SECOND = 4096
# How much of a refused body is thrown away, so that the client reads the answer instead of a reset connection.
_LINGER_BYTES = 4 * 2**20
_LINGER_SECONDS = 2.0


class _Refused(Exception):
    """The body that is being read will not be taken: an HTTP status, and why."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class BodyLimit:
    """ASGI middleware: 413 for a body over the limit of its path, by its Content-Length and by counting what arrives; 408 for one that
    does not come; 503 while all bodies together take too much room.

    The limit is `request_limit_bytes`; one part of an upload (tus PATCH) may have `chunk_limit_bytes`, where its session is open, and the
    API's files and parts what OpenAI's may, where its token is.
    """

    def __init__(self, app: Application, held_bytes: int = HELD_BYTES) -> None:
        self.app = app
        self.held_bytes = held_bytes
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        cookies = headers.get(b"cookie", b"")
        bearer = headers.get(b"authorization", b"")
        limit = body_limit(scope["method"], scope["path"], cookies, bearer)
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit():
            return await _refuse(400, "Content-Length must be a number.", scope, receive, send)
        if limit > ENV.request_limit_bytes and (int(declared) > ENV.request_limit_bytes or b"transfer-encoding" in headers):
            try:
                known = await _is_token_open(bearer) if scope["path"].startswith("/v1/") else await _is_session_open(cookies)
                limit = limit if known else ENV.request_limit_bytes
            except DatabaseError:
                return await _refuse(503, "The database is away.", scope, receive, send)
        if int(declared) > limit:
            return await _refuse(413, _words(limit), scope, receive, send)
        return await self._counted(limit, scope, receive, send)

    async def _counted(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        total = 0
        started = complete = False
        due = time.monotonic() + PATIENCE_SECONDS

        async def count() -> Message:
            nonlocal total, complete
            if complete:
                # What comes now is the news that the client has gone, for which Django waits as long as the answer takes.
                return await receive()
            try:
                async with asyncio.timeout(due + total / SLOWEST_BYTES_PER_SECOND - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise _Refused(408, "The request took too long to arrive.") from None
            complete = not message.get("more_body", False)
            total += len(message.get("body", b""))
            self.held += len(message.get("body", b""))
            if total > limit:
                raise _Refused(413, _words(limit))
            if self.held > self.held_bytes:
                raise _Refused(503, "Too much is being sent at once. Try again in a minute.")
            return message

        async def note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, count, note)
        except _Refused as refused:
            # Once an answer has begun there is no second one; the server closes the connection of an answer that was cut.
            if not started:
                await _refuse(refused.status, refused.words, scope, receive, send)
        finally:
            self.held -= total


def body_limit(method: str, path: str, cookies: bytes, bearer: bytes = b"") -> int:
    """How many bytes the body of such a request may have."""
    if method == "POST" and bearer:
        for pattern, most in _API_BYTES:
            if pattern.match(path):
                return most + _AROUND
    if method == "PATCH" and _PART.match(path) and f"{settings.SESSION_COOKIE_NAME}=".encode() in cookies:
        return ENV.chunk_limit_bytes
    return ENV.request_limit_bytes


@database_sync_to_async  # type: ignore[untyped-decorator]
def _is_session_open(cookies: bytes) -> bool:
    """Whether the cookies name a session that there is. Who it is, and what they may do, is asked behind this door."""
    from django.contrib.sessions.models import Session
    from django.utils import timezone

    key = parse_cookie(cookies.decode("latin-1")).get(settings.SESSION_COOKIE_NAME, "")
    return Session.objects.filter(session_key=key, expire_date__gt=timezone.now()).exists()


@database_sync_to_async  # type: ignore[untyped-decorator]
def _is_token_open(bearer: bytes) -> bool:
    """Whether the header names a token that opens something, by the one place that knows tokens."""
    return bool(import_string(settings.GRAFT_TOKEN_CHECK)(bearer.decode("latin-1")))


def _words(limit: int) -> str:
    return f"The request is larger than the {limit} bytes allowed here."


async def _refuse(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    kind, body = b"text/plain; charset=utf-8", (text + "\n").encode()
    if scope["path"].startswith("/v1/"):
        error = {"message": text, "type": "invalid_request_error" if status < 500 else "server_error", "param": None, "code": None}
        kind, body = b"application/json", json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", kind),
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
