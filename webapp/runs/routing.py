"""The sockets of the site."""

from __future__ import annotations

from django.urls import path, re_path

from webapp.runs.consumers import Nothing, RunConsumer

websocket_urlpatterns = [
    path("ws/runs/<uuid:run_id>/", RunConsumer.as_asgi()),
    re_path(r"", Nothing.as_asgi()),
]
