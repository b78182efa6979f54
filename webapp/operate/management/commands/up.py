"""`manage.py up` (`make run`): prepares the site, runs all its processes, and stops them all at Ctrl-C."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.core.checks import stack
from webapp.operate.management.commands.prepare import make_folders, prepared
from webapp.operate.up.site import CannotStart, Site, check_port, only_one, reachable
from webapp.settings.env import ENV


class Command(BaseCommand):
    """The whole site in one terminal."""

    help = "Prepare the site and run it: Redis, web server, dispatcher, workers. Ctrl-C stops everything within 10 s."
    # The secret key may be written only now, by `prepare`; the web process runs the checks.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Where to listen."""
        parser.add_argument("--host", default=ENV.host, help="address to listen on (GRAFT_HOST, %(default)s)")
        parser.add_argument("--port", type=int, default=ENV.port, help="port to listen on (GRAFT_PORT, %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs until it is told to stop."""
        host, port = options["host"], options["port"]
        # Whatever any process of the site writes is for its owner alone.
        os.umask(0o077)
        make_folders()
        try:
            with only_one(settings.GRAFT_VAR):
                check_port(host, port)
                call_command("prepare", stdout=self.stdout, stderr=self.stderr)
                self._say(stack())
                asyncio.run(self._run(host, port))
        except CannotStart as failure:
            raise CommandError(str(failure)) from None

    async def _run(self, host: str, port: int) -> None:
        site = Site(host, port, self._say)
        await site.run(lambda: self._announce(host, port))

    def _announce(self, host: str, port: int) -> None:
        name = reachable(host)
        url = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
        self._say(f"Graft is at {url}")
        if run_id := prepared().get("first_run"):
            self._say(f"The first run: {url}/runs/{run_id}/")
        self._say("Ctrl-C stops everything.")

    def _say(self, line: str) -> None:
        self.stdout.write(f"{'graft':<10} | {line}")
        self.stdout.flush()
