"""Views beside ninja's: the document, and what is said where there is nothing."""

from __future__ import annotations

from functools import cache

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from webapp.api.app import api
from webapp.api.errors import as_api_error


@require_safe
def document(request: HttpRequest) -> HttpResponse:
    """The OpenAPI document; it says nothing of any team."""
    return HttpResponse(_document(), content_type="application/json")


@cache
def _document() -> bytes:
    return JsonResponse(api.get_openapi_schema(path_prefix="/v1/")).content


def nothing(request: HttpRequest, rest: str) -> JsonResponse:
    """An address under /v1 that is none."""
    return as_api_error(Http404(f"Invalid URL ({request.method} {request.path[:200]})")).response()
