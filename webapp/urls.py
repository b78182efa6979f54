"""Every route of the site. Each app lists its own; all but the public ones named in `tests/webapp/test_every_url.py` need a session."""

from __future__ import annotations

from django.urls import include, path

from webapp.api.views import reference
from webapp.core import health

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("v1/", include("webapp.api.urls")),
    path("api/", reference, name="api"),
    path("", include("webapp.accounts.urls")),
    path("", include("webapp.quotas.urls")),
    path("", include("webapp.notices.urls")),
    path("", include("webapp.datasets.urls")),
    path("", include("webapp.catalog.urls")),
    path("", include("webapp.checks.urls")),
    path("", include("webapp.runs.urls")),
    path("", include("webapp.runs.experiment_urls")),
    path("", include("webapp.artifacts.urls")),
]
