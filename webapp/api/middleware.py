"""What every answer under /v1 has: a request id, how long it took, and OpenAI's shape where it is a refusal, whoever made it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from webapp.api.errors import ApiError

PREFIX = "/v1/"
_WORDS = {
    404: "There is nothing at this address.",
    405: "This address does not take {method} requests.",
    400: "The request cannot be read.",
    413: "The request is too large.",
}


@sync_and_async_middleware
def api_answers(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """The middleware; requests for pages go by it."""
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> HttpResponseBase:
            if not request.path_info.startswith(PREFIX):
                return await get_response(request)  # type: ignore[no-any-return]
            begun = _begin(request)
            return _finish(request, await get_response(request), begun)

        return answer_async

    def answer(request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(PREFIX):
            return get_response(request)  # type: ignore[no-any-return]
        begun = _begin(request)
        return _finish(request, get_response(request), begun)

    return answer


def _begin(request: HttpRequest) -> float:
    # Tokens alone: whoever is signed in on the pages is nobody here, so that no page of another site can act for them.
    request.COOKIES = {}
    request.META.pop("HTTP_COOKIE", None)
    return time.perf_counter()


def _finish(request: HttpRequest, response: HttpResponseBase, begun: float) -> HttpResponseBase:
    status = response.status_code
    if status >= 400 and "json" not in response.headers.get("Content-Type", ""):
        words = _WORDS.get(status, "The server had an error." if status >= 500 else "The request was refused.")
        said = ApiError(status, words.format(method=request.method), code="not_found" if status == 404 else None).response()
        kept = {
            name: value for name, value in response.headers.items() if name in ("Allow", "Retry-After", "Content-Range", "Accept-Ranges")
        }
        response.close()
        response = said
        for name, value in kept.items():
            response.headers[name] = value
    for name, value in getattr(request, "api_headers", {}).items():
        response.headers.setdefault(name, value)
    response.headers["x-request-id"] = f"req_{uuid4().hex}"
    response.headers["openai-processing-ms"] = str(round((time.perf_counter() - begun) * 1000))
    response.headers["Cache-Control"] = response.headers.get("Cache-Control", "no-store")
    return response
