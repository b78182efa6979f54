"""Routes of people and teams."""

from __future__ import annotations

from django.contrib.auth import views as auth
from django.urls import include, path, reverse_lazy

from webapp.accounts import views

_accounts = (
    [
        path("login/", auth.LoginView.as_view(template_name="accounts/login.html", redirect_authenticated_user=True), name="login"),
        path("logout/", auth.LogoutView.as_view(), name="logout"),
        path(
            "password/",
            auth.PasswordChangeView.as_view(template_name="accounts/password.html", success_url=reverse_lazy("accounts:password-changed")),
            name="password",
        ),
        path(
            "password/changed/",
            auth.PasswordChangeDoneView.as_view(template_name="accounts/password_changed.html"),
            name="password-changed",
        ),
        path("teams/new/", views.new_team, name="new-team"),
        path("join/<str:token>/", views.join_team, name="join"),
        path("t/<slug:slug>/members/", views.members, name="members"),
        path("t/<slug:slug>/members/invite/", views.invite_member, name="invite"),
        path("t/<slug:slug>/members/<uuid:membership_id>/role/", views.set_role, name="set-role"),
        path("t/<slug:slug>/members/<uuid:membership_id>/remove/", views.remove, name="remove"),
    ],
    "accounts",
)

urlpatterns = [path("", views.home, name="home"), path("", include(_accounts))]
