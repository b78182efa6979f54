"""The Celery task behind the doorbell of serving."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from webapp.runs.worker import stopping
from webapp.serving.server import Server
from webapp.serving.services.ask import SERVE_TASK


@shared_task(name=SERVE_TASK, bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def serve(self: Any) -> None:
    """Serves until nobody asks any more. Where another serves already, a no-op."""
    Server(self.request.hostname, stopping).run()
