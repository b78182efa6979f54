"""What is grave asks for the password again, unless it was given a few minutes ago."""

from __future__ import annotations

from allauth.account.decorators import reauthentication_required
from django.http import HttpRequest


@reauthentication_required  # type: ignore[untyped-decorator,unused-ignore]
def require_recent_sign_in(request: HttpRequest) -> None:
    """Call in a view, after its access door. Raises django-allauth's `ReauthenticationRequired`, which its middleware answers with the page
    that asks; afterwards the request goes on as it was sent, `POST` included.
    """
