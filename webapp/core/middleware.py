"""ASGI middleware for WebSockets."""

from __future__ import annotations

from webapp.core.body_limit import Application, Receive, Scope, Send
from webapp.settings.env import ENV


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
            await receive()
            await send({"type": "websocket.close", "code": 4429})
            return
        self.open += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.open -= 1
