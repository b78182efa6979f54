"""One request to the whole ASGI application, as a web server hands it over."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from django.test import Client

from webapp.asgi import application
from webapp.core.body_limit import Message


class Answer(NamedTuple):
    """What came back; the names of headers are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(path: str, *, method: str = "GET", host: str = "localhost", body: bytes = b"", **headers: str) -> Answer:
    """`headers` are written with `_` for `-`; nothing is added to them but Host."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(b"host", host.encode()), *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    messages: list[Message] = []
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        # The client stays until it has its answer.
        return parts.pop() if parts else await asyncio.Future()

    async def send(message: Message) -> None:
        messages.append(message)

    await application(scope, receive, send)
    head = {name.decode().lower(): value.decode() for name, value in messages[0]["headers"]}
    return Answer(messages[0]["status"], head, b"".join(message.get("body", b"") for message in messages[1:]))


def cookie_of(client: Client) -> str:
    """The session of a browser as a header."""
    return f"sessionid={client.cookies['sessionid'].value}"
