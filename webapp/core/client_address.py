"""Where the request that is being answered came from, for what is written down deep below the view."""

from __future__ import annotations

import ipaddress
from contextvars import ContextVar

from django.http import HttpRequest

_ADDRESS: ContextVar[str | None] = ContextVar("client_address", default=None)


def remember_address(request: HttpRequest) -> None:
    """Keeps the request's address for this task. A proxy's headers were applied by the server before (docs/operations.md)."""
    try:
        _ADDRESS.set(str(ipaddress.ip_address(request.META.get("REMOTE_ADDR", ""))))
    except ValueError:
        _ADDRESS.set(None)


def client_address() -> str | None:
    """The address of the request that is being answered; None outside of one, or where the server knows none."""
    return _ADDRESS.get()
