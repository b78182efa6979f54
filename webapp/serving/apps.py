"""Django's entry for the app."""

from django.apps import AppConfig


class ServingConfig(AppConfig):
    """Models that answer: `/v1/chat/completions`, and the process behind it."""

    name = "webapp.serving"
