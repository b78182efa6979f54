"""`manage.py process NAME`: becomes one process of the site, in the foreground, for a container or a unit of an init system."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.operate.up.commands import site_processes
from webapp.settings.env import ENV


class Command(BaseCommand):
    """Replaces itself by the process, with the command that `manage.py up` would use."""

    help = "Become one process of the site: web, dispatcher, short, train0 (train1 ... on a machine with more GPUs)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        """The name."""
        parser.add_argument("name")

    def handle(self, *args: Any, **options: Any) -> None:
        """Execs; comes back only with an error."""
        processes = {process.name: process for process in site_processes(ENV.host, ENV.port)}
        if options["name"] not in processes:
            raise CommandError(f"There is no process '{options['name']}' here; there are {', '.join(processes)}.")
        chosen = processes[options["name"]]
        os.environ.update(chosen.environment)
        sys.stdout.flush()
        os.execv(chosen.command[0], chosen.command)  # noqa: S606
