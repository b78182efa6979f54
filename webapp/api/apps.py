"""Django's entry for the app."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    """`/v1`: OpenAI's fine-tuning API, and Graft's own resources in its style."""

    name = "webapp.api"
