"""Routes of quotas."""

from __future__ import annotations

from django.urls import path

from webapp.quotas import views

app_name = "quotas"

urlpatterns = [
    path("t/<slug:slug>/usage/", views.usage, name="usage"),
    path("site/quotas/", views.site, name="site"),
    path("site/quotas/<slug:slug>/", views.edit, name="edit"),
]
