"""Routes of people and teams. Signing in is django-allauth's, under the names that it looks for; the rest is ours."""

from __future__ import annotations

from allauth.account import views as sign_in
from allauth.usersessions import views as sessions
from django.urls import URLPattern, URLResolver, include, path, re_path

from webapp.accounts import audit_views, member_views, profile_views, team_views, token_views, views

_sign_in = [
    path("login/", sign_in.login, name="account_login"),
    path("logout/", sign_in.logout, name="account_logout"),
    path("account/inactive/", sign_in.account_inactive, name="account_inactive"),
    path("account/reauthenticate/", sign_in.reauthenticate, name="account_reauthenticate"),
    path("account/email/", sign_in.email, name="account_email"),
    path("account/email/sent/", sign_in.email_verification_sent, name="account_email_verification_sent"),
    path("account/email/confirm/<str:key>/", sign_in.confirm_email, name="account_confirm_email"),
    path("account/sessions/", sessions.list_usersessions, name="usersessions_list"),
    path("account/two-factor/", include("allauth.mfa.urls")),
    path("password/", sign_in.password_change, name="account_change_password"),
    path("password/set/", sign_in.password_set, name="account_set_password"),
    path("password/reset/", sign_in.password_reset, name="account_reset_password"),
    path("password/reset/sent/", sign_in.password_reset_done, name="account_reset_password_done"),
    path("password/reset/done/", sign_in.password_reset_from_key_done, name="account_reset_password_from_key_done"),
    # The form of this one is fixed: django-allauth writes the link into its mail.
    re_path(
        r"^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
        sign_in.password_reset_from_key,
        name="account_reset_password_from_key",
    ),
]

_members = [
    path("", member_views.members, name="members"),
    path("invite/", member_views.invite_member, name="invite"),
    path("invitations/<uuid:invitation_id>/renew/", member_views.renew_invitation, name="renew-invitation"),
    path("invitations/<uuid:invitation_id>/revoke/", member_views.revoke_invitation, name="revoke-invitation"),
    path("<uuid:membership_id>/role/", member_views.set_role, name="set-role"),
    path("<uuid:membership_id>/remove/", member_views.remove, name="remove"),
    path("<uuid:membership_id>/hand-over/", member_views.give_ownership, name="hand-over"),
]

_accounts: tuple[list[URLPattern | URLResolver], str] = (
    [
        path("account/", profile_views.profile, name="profile"),
        path("teams/new/", views.new_team, name="new-team"),
        path("join/<str:token>/", views.join_team, name="join"),
        path("t/<slug:slug>/members/", include(_members)),
        path("t/<slug:slug>/tokens/", token_views.tokens, name="tokens"),
        path("t/<slug:slug>/tokens/<uuid:token_id>/revoke/", token_views.revoke, name="revoke-token"),
        path("t/<slug:slug>/audit/", audit_views.audit, name="audit"),
        path("t/<slug:slug>/audit/csv/", audit_views.audit_csv, name="audit-csv"),
        path("t/<slug:slug>/settings/", team_views.settings_page, name="settings"),
        path("t/<slug:slug>/settings/name/", team_views.rename, name="rename-team"),
        path("t/<slug:slug>/settings/two-factor/", team_views.two_factor, name="team-two-factor"),
        path("t/<slug:slug>/settings/delete/", team_views.delete, name="delete-team"),
    ],
    "accounts",
)

urlpatterns = [path("", views.home, name="home"), *_sign_in, path("", include(_accounts))]
