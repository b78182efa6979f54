"""What an API token may be good for. A scope never gives more than its maker's role in the team does."""

from __future__ import annotations

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Scope(TextChoices):
    """A scope as it stands in the database and in the `scope` of a refusal."""

    RUNS_READ = "runs:read", _("Read runs, their curves and artifacts")
    RUNS_WRITE = "runs:write", _("Start, stop and delete runs")
    DATA_READ = "data:read", _("Read datasets")
    DATA_WRITE = "data:write", _("Upload and delete datasets")
    MODELS_READ = "models:read", _("Read models")
    MODELS_WRITE = "models:write", _("Add and delete models")
