"""Invitations that are renewed, revoked and sent; a team's name and its end; ownership handed over."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core import mail
from django.urls import reverse

from jobs.errors import UserError
from tests.webapp.cast import PASSWORD, Cast
from tests.webapp.test_every_url import make_things
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import AuditEvent, Invitation, Membership, Role, Team
from webapp.accounts.services.delete_team import delete_team
from webapp.accounts.services.invite import invite, renew
from webapp.accounts.services.join import open_invitation
from webapp.accounts.services.members import hand_over
from webapp.datasets.models import Dataset
from webapp.runs.models import Run
from webapp.settings.mail import Mail, mail_from


def opens(token: str) -> bool:
    try:
        open_invitation(token)
    except UserError:
        return False
    return True


def test_a_renewed_invitation_has_another_link(cast: Cast) -> None:
    old = invite(team=cast.team, inviter=cast.max, role=Role.MEMBER)
    page = cast.client(cast.max).post(reverse("accounts:renew-invitation", args=["night", Invitation.objects.get().pk]))
    new = re.search(r"http://testserver/join/([\w-]+)/", page.content.decode())
    assert new is not None
    assert (opens(old), opens(new[1])) == (False, True)


def test_a_revoked_invitation_opens_nothing(cast: Cast) -> None:
    token = invite(team=cast.team, inviter=cast.max, role=Role.MEMBER)
    url = reverse("accounts:revoke-invitation", args=["night", Invitation.objects.get().pk])
    assert cast.client(cast.bob).post(url).status_code == 403
    assert opens(token)
    cast.client(cast.max).post(url)
    assert not opens(token)
    assert cast.client(cast.max).post(url).status_code == 404


def test_nobody_renews_an_invitation_above_their_role(cast: Cast) -> None:
    token = invite(team=cast.team, inviter=cast.alice, role=Role.OWNER)
    with pytest.raises(UserError) as refused:
        renew(team=cast.team, actor=cast.max, invitation_id=Invitation.objects.get().pk)
    assert refused.value.code == "role_too_high"
    assert opens(token)


def test_an_invitation_goes_by_mail_where_the_site_sends_any(cast: Cast, settings: Any) -> None:
    url = reverse("accounts:invite", args=["night"])
    wanted = {"role": "member", "email": "nora@example.org"}
    shown = cast.client(cast.max).post(url, wanted)
    assert (shown.status_code, len(mail.outbox), "/join/" in shown.content.decode()) == (200, 0, True)
    settings.GRAFT_EMAIL = True
    assert cast.client(cast.max).post(url, wanted).status_code == 302
    assert mail.outbox[0].to == ["nora@example.org"]
    link = re.search(r"http://testserver(/join/[\w-]+/)", str(mail.outbox[0].body))
    assert link is not None
    assert "nora@example.org" in cast.client(None).get(link[1]).content.decode()
    assert cast.client(cast.max).post(url, {"role": "member", "email": "no address"}).status_code == 422


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", Mail()),
        (
            "smtp://me:p%40ss@mail.example",
            Mail("django.core.mail.backends.smtp.EmailBackend", "mail.example", 587, "me", "p@ss", True, False),
        ),
        ("smtps://mail.example:4650", Mail("django.core.mail.backends.smtp.EmailBackend", "mail.example", 4650, "", "", False, True)),
    ],
)
def test_a_mail_server_is_named_by_a_url(url: str, expected: Mail) -> None:
    assert mail_from(url) == expected


def test_a_url_that_names_no_mail_server_stops_the_program() -> None:
    with pytest.raises(ValueError, match="GRAFT_EMAIL_URL"):
        mail_from("mail.example:25")


def test_a_removal_asks_for_the_name(cast: Cast) -> None:
    client = cast.client(cast.max)
    url = reverse("accounts:remove", args=["night", cast.team.memberships.get(user=cast.bob).pk])
    assert "Type bob to confirm" in client.get(url).content.decode()
    assert client.post(url, {"confirm": "Bob"}).status_code == 422
    assert cast.team.memberships.filter(user=cast.bob).exists()
    assert client.post(url, {"confirm": "bob"})["Location"] == reverse("accounts:members", args=["night"])
    assert not cast.team.memberships.filter(user=cast.bob).exists()


def test_a_team_is_handed_over_to_a_member_who_does_not_own_it(cast: Cast) -> None:
    owner = cast.team.memberships.get(user=cast.alice)
    with pytest.raises(UserError) as refused:
        hand_over(team=cast.team, actor=cast.alice, membership_id=owner.pk)
    assert refused.value.code == "already_owner"
    hand_over(team=cast.team, actor=cast.alice, membership_id=cast.team.memberships.get(user=cast.vera).pk)
    assert dict(Membership.objects.filter(team=cast.team).values_list("user__username", "role")) == {
        "alice": "maintainer", "max": "maintainer", "bob": "member", "vera": "owner",
    }  # fmt: skip


def test_a_team_has_another_name_at_the_same_address(cast: Cast) -> None:
    client = cast.client(cast.alice)
    assert client.post(reverse("accounts:rename-team", args=["night"]), {"name": " Day shift "}).status_code == 302
    assert Team.objects.get(slug="night").name == "Day shift"
    assert client.post(reverse("accounts:rename-team", args=["night"]), {"name": ""}).status_code == 422
    assert AuditEvent.objects.get(action=Action.TEAM_RENAMED).detail == {"from": "Night shift"}


def test_a_team_goes_with_all_it_has_and_no_other(cast: Cast, django_capture_on_commit_callbacks: Any) -> None:
    things = make_things(cast)
    theirs = Dataset.objects.create(team=cast.other_team, name="Theirs", created_by=cast.charlie)
    folder = things.run.folder
    assert folder.is_dir()
    client = cast.client(None)
    client.post("/login/", {"login": "alice", "password": PASSWORD})
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    url = reverse("accounts:delete-team", args=["night"])
    assert client.post(url, {"confirm": "night"}).status_code == 422
    assert Team.objects.filter(slug="night").exists()
    with django_capture_on_commit_callbacks(execute=True):
        assert client.post(url, {"confirm": "Night shift"})["Location"] == "/"
    assert list(Team.objects.values_list("slug", flat=True)) == ["others"]
    assert list(Dataset.objects.all()) == [theirs]
    assert not folder.exists()
    event = AuditEvent.objects.get(action=Action.TEAM_DELETED)
    assert (event.team, event.actor_name, event.object_name) == (None, "alice", "Night shift")
    assert event.detail["members"] == ["alice", "bob", "max", "vera"]


def test_a_team_whose_runs_have_not_ended_stays(cast: Cast) -> None:
    things = make_things(cast)
    Run.objects.filter(pk=things.run.pk).update(state="running")
    with pytest.raises(UserError) as refused:
        delete_team(team=cast.team, actor=cast.alice)
    assert refused.value.code == "team_busy"
    assert Run.objects.filter(pk=things.run.pk).exists()
    assert not AuditEvent.objects.filter(action=Action.TEAM_DELETED).exists()
