"""Routes of downloads."""

from __future__ import annotations

from django.urls import path

from webapp.artifacts import views

app_name = "artifacts"

urlpatterns = [
    path("artifacts/<uuid:artifact_id>/download/", views.download, name="download"),
    path("artifacts/<uuid:artifact_id>/files/<int:number>/", views.file, name="file"),
    path("artifacts/<uuid:artifact_id>/sha256/", views.checksums, name="sha256"),
]
