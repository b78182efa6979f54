"""Two questions that machines ask: does the process answer (`/healthz`), and can the site do its work (`/readyz`)?

They are answered before any other middleware: who asks (a container engine, a load balancer, `manage.py up`) speaks plain HTTP to an
address that is none of the site's host names, and has no session.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from redis import RedisError

from webapp.core.redis import client

# A dispatcher rings at once; a doorbell that has waited this long says that none is at work.
DISPATCHER_SECONDS = 30
WORKER_SECONDS = 60
DISK_FREE_BYTES = 2**30


def healthz(request: HttpRequest) -> JsonResponse:
    """200 as long as the process answers; touches neither database nor Redis."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """200 where database, Redis, disk, dispatcher and a training worker are all there, else 503; the body names each part."""
    parts = {"database": _database(), "redis": _redis(), "disk": _disk()}
    if parts["database"]:
        parts |= {"dispatcher": _dispatcher(), "worker": _worker()}
    ready = all(parts.values())
    return JsonResponse({"status": "ok" if ready else "failing", "parts": parts}, status=200 if ready else 503)


PROBES: dict[str, Callable[[HttpRequest], JsonResponse]] = {"/healthz": healthz, "/readyz": readyz}


def probes(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Middleware that answers `PROBES`, and passes on all else."""
    if not asyncio.iscoroutinefunction(get_response):

        def answer(request: HttpRequest) -> Any:
            probe = PROBES.get(request.path_info)
            return probe(request) if probe else get_response(request)

        return answer

    async def answer_async(request: HttpRequest) -> Any:
        probe = PROBES.get(request.path_info)
        return await (sync_to_async(probe)(request) if probe else get_response(request))

    return answer_async


# Django chooses the form by these; its decorator that sets them has no types.
probes.sync_capable = probes.async_capable = True  # type: ignore[attr-defined]


def _database() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def _redis() -> bool:
    try:
        with client() as server:
            return bool(server.ping())
    except RedisError:
        return False


def _disk() -> bool:
    try:
        return shutil.disk_usage(settings.GRAFT_VAR).free >= DISK_FREE_BYTES
    except OSError:
        return False


def _dispatcher() -> bool:
    # By name, since core stands below the apps whose rows these are.
    messages = apps.get_model("work", "OutboxMessage")._default_manager
    overdue = timezone.now() - timedelta(seconds=DISPATCHER_SECONDS)
    return not messages.filter(published_at=None, created_at__lt=overdue).exists()


def _worker() -> bool:
    workers = apps.get_model("runs", "Worker")._default_manager
    return workers.filter(queue="train", seen_at__gt=timezone.now() - timedelta(seconds=WORKER_SECONDS)).exists()
