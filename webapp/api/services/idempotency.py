"""`Idempotency-Key`: a request that is sent twice is done once, and answered twice with the same words, for a day."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from ninja import Schema

from webapp.api.auth import Caller
from webapp.api.errors import ApiError
from webapp.api.models import KeptAnswer

HEADER = "Idempotency-Key"
MOST_CHARACTERS = 255
# A request that has not been answered after this long never will be: its process is gone.
_STALE = timedelta(minutes=10)


def once(request: HttpRequest, make: Callable[[], Schema]) -> Any:
    """What `make` answers; for a repeated key the first answer. Refusals are not kept: what was refused may be mended and sent again.

    Raises `ApiError` 409 while the first request is being worked on, and 422 for a key that came with another request.
    """
    key = request.headers.get(HEADER, "")
    if not key:
        return make()
    if len(key) > MOST_CHARACTERS:
        raise ApiError(400, f"The {HEADER} is longer than {MOST_CHARACTERS} characters.", param=HEADER)
    caller: Caller = request.auth  # type: ignore[attr-defined]
    kept, known = _begin(caller, key, _digest(request))
    if known:
        return JsonResponse(kept.body, status=kept.status or 200, headers={"idempotent-replayed": "true"})
    try:
        answer = make()
    except BaseException:
        kept.delete()
        raise
    KeptAnswer.objects.filter(pk=kept.pk).update(status=200, body=json.loads(answer.model_dump_json()))
    return answer


def _begin(caller: Caller, key: str, request: str) -> tuple[KeptAnswer, bool]:
    """The row of the key, and whether it holds an answer already."""
    KeptAnswer.objects.filter(team=caller.team, key=key, status=None, created_at__lt=timezone.now() - _STALE).delete()
    try:
        with transaction.atomic():
            return KeptAnswer.objects.create(team=caller.team, key=key, request=request), False
    except IntegrityError:
        kept = KeptAnswer.objects.get(team=caller.team, key=key)
    if kept.request != request:
        raise ApiError(422, f"This {HEADER} came with another request before.", code="idempotency_key_reused", param=HEADER)
    if kept.status is None:
        raise ApiError(409, "The first request with this key is still being worked on.", code="idempotency_in_progress", should_retry=True)
    return kept, True


def _digest(request: HttpRequest) -> str:
    return hashlib.sha256(b"\0".join((str(request.method).encode(), request.path.encode(), request.body))).hexdigest()
