"""Django's entry for the app."""

from django.apps import AppConfig


class FilesConfig(AppConfig):
    """Files of the API. What is for fine-tuning shows as a dataset on the pages too."""

    name = "webapp.files"
