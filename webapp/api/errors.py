"""Refusals in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

Clients retry 408, 409, 429 and 5xx twice unless the answer says `x-should-retry: false`, as a conflict does that a second try cannot cure.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, JsonResponse
from ninja import NinjaAPI, Schema
from ninja.errors import HttpError, ValidationError

from jobs.errors import GraftError
from webapp.accounts.bearer import TokenRefused

log = logging.getLogger(__name__)
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 501: "not_implemented_error"}
# Where a part of the request is found, as ninja says it before the name.
_PLACES = ("body", "query", "path", "form", "file", "header")


class ErrorFacts(Schema):
    """What went wrong. `param` is the field at fault, `code` a stable word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorObject(Schema):
    """A refusal."""

    error: ErrorFacts


class ApiError(Exception):
    """A refusal: status, words, and what a program reads. `should_retry` becomes the header that the client obeys."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.type = type or _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.headers = dict(headers or {})
        if should_retry is None and status == 409:
            should_retry = False
        if should_retry is not None:
            self.headers["x-should-retry"] = str(should_retry).lower()

    def response(self) -> JsonResponse:
        """The refusal as an answer."""
        facts = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return JsonResponse({"error": facts}, status=self.status, headers=self.headers)


def as_api_error(fault: Exception) -> ApiError:  # noqa: PLR0911 - a table
    """What is said of whatever a view raised. What nobody foresaw is a 500 without its words: they may be anybody's."""
    match fault:
        case ApiError():
            return fault
        case TokenRefused():
            headers = {"WWW-Authenticate": f'Bearer error="{fault.code}"'}
            code = "invalid_api_key" if fault.status == 401 else fault.code
            return ApiError(fault.status, fault.message, code=code, headers=headers)
        case ValidationError():
            return _invalid(fault.errors)
        case HttpError():
            return ApiError(fault.status_code, str(fault))
        case GraftError():
            field = fault.where.get("field")
            return ApiError(400, f"{fault.message} {fault.remedy}".strip(), code=fault.code, param=str(field) if field else None)
        case PermissionDenied():
            return ApiError(403, "Your role in the team does not allow this.", code="insufficient_role")
        case Http404():
            words = str(fault) if fault.args and isinstance(fault.args[0], str) else ""
            return ApiError(404, words or "There is nothing at this address.", code="not_found")
    return ApiError(500, "The server had an error while processing your request. It has been written to its log.", should_retry=True)


def answer_fault(request: HttpRequest, fault: Exception) -> JsonResponse:
    """The one handler of everything that views under /v1 raise."""
    error = as_api_error(fault)
    if error.status >= 500 and not isinstance(fault, ApiError):
        log.error("%s %s", request.method, request.path, exc_info=fault)
    return error.response()


def handle_errors(api: NinjaAPI) -> None:
    """Has `answer_fault` called for all that ninja knows handlers for."""
    for kind in (Exception, Http404, ValidationError, HttpError):
        api.add_exception_handler(kind, answer_fault)  # type: ignore[arg-type]


def _invalid(errors: list[Any]) -> ApiError:
    """The first fault that ninja found in a request, with the name of the field at fault."""
    first = errors[0] if errors else {}
    names = [str(part) for part in first.get("loc", ()) if not str(part).startswith("function-")]
    if names and names[0] in _PLACES:
        # After the place comes the name of the view's argument where it stands for the whole body; a number is a place in a list.
        whole = names[0] in ("body", "form", "query") and len(names) > 2 and not names[2].isdecimal()
        names = [] if names[0] == "body" and len(names) == 2 else names[2:] if whole else names[1:]
    param = ".".join(names) or None
    if first.get("type") == "missing" and param:
        return ApiError(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    where = f"Invalid '{param}'" if param else "Invalid body"
    return ApiError(400, f"{where}: {first.get('msg', 'it cannot be read')}.", code="invalid_value", param=param)
