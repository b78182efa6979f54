"""The Celery app: `celery -A webapp worker -Q train`. Its processes load Django, never torch."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings.base")

app = Celery("graft")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_init.connect  # type: ignore[untyped-decorator]
def _look_first(**kwargs: Any) -> None:
    """Workers are started by Celery's own command, which knows nothing of the checks that `manage.py` makes."""
    from webapp.core.checks import refuse_to_start_unsafe

    refuse_to_start_unsafe()
