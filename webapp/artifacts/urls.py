"""Routes of artifacts and their downloads."""

from __future__ import annotations

from django.urls import path

from webapp.artifacts import downloads, views

app_name = "artifacts"

urlpatterns = [
    path("t/<slug:slug>/artifacts/", views.artifact_list, name="list"),
    path("artifacts/<uuid:artifact_id>/", views.detail, name="detail"),
    path("artifacts/<uuid:artifact_id>/base-model/", views.use_as_base, name="use-as-base"),
    path("artifacts/<uuid:artifact_id>/delete/", views.delete, name="delete"),
    path("artifacts/<uuid:artifact_id>/download/", downloads.download, name="download"),
    path("artifacts/<uuid:artifact_id>/files/<int:number>/", downloads.file, name="file"),
    path("artifacts/<uuid:artifact_id>/sha256/", downloads.checksums, name="sha256"),
]
