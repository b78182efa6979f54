"""The app of people and teams."""

from __future__ import annotations

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Listens to django-allauth, which says by signals what has become of passwords and second factors."""

    name = "webapp.accounts"

    def ready(self) -> None:
        """Imports the receivers, which connects them."""
        from webapp.accounts import receivers  # noqa: F401
