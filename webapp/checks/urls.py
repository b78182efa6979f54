"""Routes of the data check for a base model."""

from __future__ import annotations

from django.urls import path

from webapp.checks import views

app_name = "checks"

urlpatterns = [
    path("datasets/versions/<uuid:version_id>/rows/", views.rows, name="rows"),
    path("datasets/versions/<uuid:version_id>/lengths/", views.lengths, name="lengths"),
    path("datasets/versions/<uuid:version_id>/lengths/measure/", views.measure, name="measure"),
]
