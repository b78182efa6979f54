"""Routes of notices."""

from __future__ import annotations

from django.urls import path

from webapp.notices import views

app_name = "notices"

urlpatterns = [
    path("t/<slug:slug>/notifications/", views.notifications, name="notifications"),
    path("t/<slug:slug>/notifications/feed/", views.feed, name="feed"),
    path("t/<slug:slug>/notifications/mine/", views.preferences, name="preferences"),
    path("t/<slug:slug>/notifications/webhooks/", views.add, name="add-webhook"),
    path("t/<slug:slug>/notifications/webhooks/<uuid:webhook_id>/active/", views.set_active, name="switch-webhook"),
    path("t/<slug:slug>/notifications/webhooks/<uuid:webhook_id>/secret/", views.renew, name="renew-secret"),
    path("t/<slug:slug>/notifications/webhooks/<uuid:webhook_id>/test/", views.test, name="test-webhook"),
    path("t/<slug:slug>/notifications/webhooks/<uuid:webhook_id>/delete/", views.delete, name="delete-webhook"),
    path("t/<slug:slug>/notifications/deliveries/<uuid:delivery_id>/again/", views.resend, name="send-again"),
]
