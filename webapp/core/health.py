"""Two questions that machines ask: does the process answer (`/healthz`), and can the site do its work (`/readyz`)?"""

from __future__ import annotations

import shutil
from datetime import timedelta

from django.apps import apps
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from redis import RedisError

from webapp.core.redis import client

# A dispatcher rings at once; a doorbell that has waited this long says that none is at work.
DISPATCHER_SECONDS = 30
WORKER_SECONDS = 60
DISK_FREE_BYTES = 2**30


@login_not_required
def healthz(request: HttpRequest) -> JsonResponse:
    """200 as long as the process answers; touches neither database nor Redis."""
    return JsonResponse({"status": "ok"})


@login_not_required
def readyz(request: HttpRequest) -> JsonResponse:
    """200 where database, Redis, disk, dispatcher and a training worker are all there, else 503; the body names each part."""
    parts = {"database": _database(), "redis": _redis(), "disk": _disk()}
    if parts["database"]:
        parts |= {"dispatcher": _dispatcher(), "worker": _worker()}
    ready = all(parts.values())
    return JsonResponse({"status": "ok" if ready else "failing", "parts": parts}, status=200 if ready else 503)


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
