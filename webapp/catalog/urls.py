"""Routes of base models."""

from __future__ import annotations

from django.urls import path

from webapp.catalog import views

app_name = "catalog"

urlpatterns = [
    path("t/<slug:slug>/models/", views.model_list, name="list"),
    path("t/<slug:slug>/models/add/<slug:way>/", views.add, name="add"),
    path("models/<uuid:model_id>/", views.detail, name="detail"),
    path("models/<uuid:model_id>/retry/", views.retry, name="retry"),
    path("models/<uuid:model_id>/licence/", views.licence, name="licence"),
    path("models/<uuid:model_id>/archive/", views.archive, name="archive"),
    path("models/<uuid:model_id>/delete/", views.delete, name="delete"),
]
