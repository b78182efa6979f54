"""Routes of the API: its operations, its document, and an answer in its own shape for every other address below it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from webapp.api import views
from webapp.api.app import api


def _open(view: Any) -> Any:
    """A view before which neither a session nor a token is asked for: operations ask for the token themselves (`auth.needs`)."""
    view.asks_itself = True
    return csrf_exempt(login_not_required(view))


_operations = list(api.urls[0])
for _pattern in _operations:
    _pattern.callback = _open(_pattern.callback)

app_name = "v1"
urlpatterns = [
    path("openapi.json", _open(views.document), name="openapi"),
    *_operations,
    path("<path:rest>", _open(views.nothing), name="nothing"),
]
