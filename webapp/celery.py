"""The Celery app: `celery -A webapp worker -Q train`. Its processes load Django, never torch."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings.base")

app = Celery("graft")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _on_worker(**_: Any) -> None:
    # Only a worker: a web process imports this module too, and Django may not be ready where it does.
    from webapp.runs import worker

    worker.connect(app)
