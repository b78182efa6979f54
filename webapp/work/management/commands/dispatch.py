"""`manage.py dispatch`: rings the doorbells that the outbox holds, until it is told to stop."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from webapp.core.processes import die_with_parent
from webapp.settings.env import ENV
from webapp.work.dispatcher import Dispatcher


class Command(BaseCommand):
    """The dispatcher as a process."""

    help = "Carry outbox rows to Celery and run the reconcilers, every GRAFT_DISPATCH_SECONDS."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Ticks until SIGTERM or SIGINT."""
        die_with_parent()
        over = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: over.set())
        dispatcher = Dispatcher()
        while not over.is_set():
            dispatcher.tick()
            over.wait(ENV.dispatch_seconds)
