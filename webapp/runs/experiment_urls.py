"""Routes of experiments."""

from __future__ import annotations

from django.urls import path

from webapp.runs import experiment_views

app_name = "experiments"

urlpatterns = [
    path("t/<slug:slug>/experiments/", experiment_views.experiment_list, name="list"),
    path("t/<slug:slug>/experiments/new/", experiment_views.new, name="new"),
    path("experiments/<uuid:experiment_id>/", experiment_views.detail, name="detail"),
    path("experiments/<uuid:experiment_id>/table/<slug:form>/", experiment_views.export, name="export"),
    path("experiments/<uuid:experiment_id>/add/", experiment_views.add, name="add"),
    path("experiments/<uuid:experiment_id>/stop/", experiment_views.stop, name="stop"),
    path("experiments/<uuid:experiment_id>/retry/", experiment_views.retry, name="retry"),
    path("experiments/<uuid:experiment_id>/delete/", experiment_views.delete, name="delete"),
]
