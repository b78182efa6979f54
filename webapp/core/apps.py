"""The core app: system checks, health, the commands that prepare and start a site."""

from __future__ import annotations

from django.apps import AppConfig


class CoreConfig(AppConfig):
    """Registers the system checks."""

    name = "webapp.core"

    def ready(self) -> None:
        """Imports the checks, which registers them."""
        from webapp.core import checks  # noqa: F401
