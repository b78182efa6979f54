"""Routes of datasets and uploads."""

from __future__ import annotations

from django.urls import path

from webapp.datasets import check_views, tus, views

app_name = "datasets"

urlpatterns = [
    path("t/<slug:slug>/uploads/", tus.creation, name="upload-create"),
    path("uploads/<uuid:upload_id>", tus.upload, name="upload"),
    path("t/<slug:slug>/datasets/", views.dataset_list, name="list"),
    path("t/<slug:slug>/datasets/new/", views.new_dataset, name="new"),
    path("datasets/<uuid:dataset_id>/", views.detail, name="detail"),
    path("datasets/<uuid:dataset_id>/describe/", check_views.describe, name="describe"),
    path("datasets/<uuid:dataset_id>/new/", views.new_version, name="new-version"),
    path("datasets/versions/<uuid:version_id>/", views.version, name="version"),
    path("datasets/versions/<uuid:version_id>/preview/", views.preview, name="preview"),
    path("datasets/versions/<uuid:version_id>/validate/", views.validate, name="validate"),
    path("datasets/versions/<uuid:version_id>/skip-bad-rows/", views.skip_bad_rows, name="skip-bad-rows"),
    path("datasets/versions/<uuid:version_id>/problems/", check_views.problem_list, name="problems"),
    path("datasets/versions/<uuid:version_id>/problems.csv", check_views.problem_csv, name="problems-csv"),
    path("datasets/versions/<uuid:version_id>/copies/", check_views.copy_list, name="copies"),
    path("datasets/versions/<uuid:version_id>/copies.csv", check_views.copy_csv, name="copies-csv"),
    path("datasets/versions/<uuid:version_id>/balance/", check_views.balance_page, name="balance"),
    path("datasets/versions/<uuid:version_id>/examine/", check_views.examine_again, name="examine"),
    path("datasets/versions/<uuid:version_id>/lineage/", check_views.lineage, name="lineage"),
]
