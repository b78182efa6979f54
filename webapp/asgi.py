"""The web process: HTTP and WebSockets. Nothing here may load torch (`tests/webapp/core/test_asgi.py`)."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

from webapp.core.body_limit import BodyLimit
from webapp.core.checks import refuse_to_start_unsafe
from webapp.core.collector import settle
from webapp.core.middleware import ConnectionLimit, SameOrigin, SecureHeaders

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings.base")


def _application() -> ProtocolTypeRouter:
    # Django is set up by this call; what is imported after it has models.
    django = get_asgi_application()
    refuse_to_start_unsafe()
    from channels.sessions import CookieMiddleware, SessionMiddleware
    from django.urls import get_resolver

    from webapp.accounts.sockets import SignedInSockets
    from webapp.runs.routing import websocket_urlpatterns

    sockets = CookieMiddleware(SessionMiddleware(SignedInSockets(URLRouter(websocket_urlpatterns))))
    # Loads every view, which the first request would else.
    _ = get_resolver().url_patterns
    settle()
    return ProtocolTypeRouter({"http": SecureHeaders(BodyLimit(django)), "websocket": SameOrigin(ConnectionLimit(sockets))})


application = _application()
