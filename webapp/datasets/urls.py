"""Routes of datasets and uploads."""

from __future__ import annotations

from django.urls import path

from webapp.datasets import tus, views

app_name = "datasets"

urlpatterns = [
    path("t/<slug:slug>/uploads/", tus.creation, name="upload-create"),
    path("uploads/<uuid:upload_id>", tus.upload, name="upload"),
    path("t/<slug:slug>/datasets/", views.dataset_list, name="list"),
    path("t/<slug:slug>/datasets/new/", views.new_dataset, name="new"),
    path("datasets/<uuid:dataset_id>/", views.detail, name="detail"),
    path("datasets/<uuid:dataset_id>/new/", views.new_version, name="new-version"),
    path("datasets/versions/<uuid:version_id>/", views.version, name="version"),
    path("datasets/versions/<uuid:version_id>/preview/", views.preview, name="preview"),
    path("datasets/versions/<uuid:version_id>/validate/", views.validate, name="validate"),
    path("datasets/versions/<uuid:version_id>/skip-bad-rows/", views.skip_bad_rows, name="skip-bad-rows"),
]
