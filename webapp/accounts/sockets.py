"""The door of every WebSocket: nobody's socket reaches a consumer, as nobody's request reaches a page (`LoginRequiredMiddleware`)."""

from __future__ import annotations

from webapp.accounts.models import User
from webapp.core.body_limit import Application, Receive, Scope, Send
from webapp.core.middleware import refuse_socket

NO_ACCESS = 4404


class SignedInSockets:
    """Refuses (HTTP 403) the socket of a visitor; stands behind the middleware that looks up who it is."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the socket on, or closes it."""
        if isinstance(scope["user"], User):
            await self.app(scope, receive, send)
        else:
            await refuse_socket(receive, send, NO_ACCESS)
