"""Language and time zone of the person who is signed in, before those that the browser names."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils import timezone, translation


def own_language(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware, behind `LocaleMiddleware` and the sessions: what the profile leaves empty stays the browser's and the site's."""

    def answer(request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            if request.user.language:
                translation.activate(request.user.language)
            if request.user.time_zone:
                timezone.activate(zoneinfo.ZoneInfo(request.user.time_zone))
        try:
            return get_response(request)
        finally:
            timezone.deactivate()

    return answer
