"""Views beside ninja's: the document, and what is said where there is nothing."""

from __future__ import annotations

import json
from functools import cache

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from webapp.api.app import api
from webapp.api.errors import as_api_error
from webapp.api.reference import Operation, operations
from webapp.notices.words import site_url


@require_safe
def document(request: HttpRequest) -> HttpResponse:
    """The OpenAPI document; it says nothing of any team."""
    return HttpResponse(_document(), content_type="application/json")


@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    """The same for people: every operation with what it takes and gives."""
    return render(request, "api/reference.html", {"tags": _operations(), "origin": site_url("")})


@cache
def _document() -> bytes:
    return JsonResponse(api.get_openapi_schema(path_prefix="/v1/")).content


@cache
def _operations() -> dict[str, list[Operation]]:
    return operations(json.loads(_document()))


def nothing(request: HttpRequest, rest: str) -> JsonResponse:
    """An address under /v1 that is none."""
    return as_api_error(Http404(f"Invalid URL ({request.method} {request.path[:200]})")).response()
