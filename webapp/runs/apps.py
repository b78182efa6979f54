"""Django's entry for the app."""

from django.apps import AppConfig


class RunsConfig(AppConfig):
    """Runs: the lease, the supervisor of the training child, and what it leaves behind."""

    name = "webapp.runs"
