"""Teams, roles and invitations: who may do what to whom, and that nothing happens where it is refused."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from jobs.errors import UserError
from tests.webapp.cast import PASSWORD, Cast
from webapp.accounts.access import ACTIONS, can, teams_of, visible_to
from webapp.accounts.models import Invitation, Membership, Role, Team, User
from webapp.accounts.services.create_team import create_team
from webapp.accounts.services.invite import invite
from webapp.accounts.services.join import join
from webapp.accounts.services.members import change_role, remove_member
from webapp.datasets.models import Dataset


def membership(cast: Cast, person: User) -> Membership:
    return Membership.objects.get(team=cast.team, user=person)


def test_each_role_may_do_what_those_before_it_may() -> None:
    actions = list(ACTIONS.values())
    assert all(less < more for less, more in pairwise(actions))
    assert list(ACTIONS) == [Role.VIEWER, Role.MEMBER, Role.MAINTAINER, Role.OWNER]


def test_rights_end_with_the_account(cast: Cast) -> None:
    assert can(cast.alice, cast.team, "own")
    User.objects.filter(pk=cast.alice.pk).update(is_active=False)
    cast.alice.refresh_from_db()
    assert not can(cast.alice, cast.team, "view")
    assert not teams_of(cast.alice).exists()


def test_an_administrator_sees_own_teams_alone(cast: Cast) -> None:
    assert not can(cast.ada, cast.team, "view")
    assert not teams_of(cast.ada).exists()


def test_rows_of_another_team_are_not_visible(cast: Cast) -> None:
    for team, owner in ((cast.team, cast.alice), (cast.other_team, cast.charlie)):
        Dataset.objects.create(team=team, name="tickets", created_by=owner)
    assert [row.team for row in visible_to(cast.vera, Dataset.objects.all())] == [cast.team]
    assert [row.team for row in visible_to(cast.charlie, Dataset.objects.all())] == [cast.other_team]
    assert not visible_to(cast.ada, Dataset.objects.all()).exists()


# -- the front door --------------------------------------------------------------------------------------------------


def test_home_leads_to_the_last_used_team(cast: Cast) -> None:
    Membership.objects.create(team=cast.other_team, user=cast.alice, role=Role.VIEWER)
    client = cast.client(cast.alice)
    assert client.get("/")["Location"] == reverse("runs:list", args=["night"])
    client.get(reverse("accounts:members", args=["others"]))
    assert client.get("/")["Location"] == reverse("runs:list", args=["others"])
    Membership.objects.filter(team=cast.other_team, user=cast.alice).delete()
    assert client.get("/")["Location"] == reverse("runs:list", args=["night"])


def test_a_person_without_a_team_is_told_what_to_do(cast: Cast) -> None:
    page = cast.client(cast.ada).get("/")
    assert page.status_code == 200
    assert reverse("accounts:new-team") in page.content.decode()


def test_sign_in_and_out(cast: Cast) -> None:
    client = cast.client(None)
    url = reverse("datasets:list", args=["night"])
    login = client.get(url)["Location"]
    assert client.post(login, {"login": "bob", "password": "wrong"}).status_code == 200
    assert client.post(login, {"login": "bob", "password": PASSWORD, "next": url})["Location"] == url
    assert client.get(url).status_code == 200
    client.post(reverse("account_logout"))
    assert client.get(url).status_code == 302


def test_a_login_sends_nobody_to_another_site(cast: Cast) -> None:
    answer = cast.client(None).post(reverse("account_login"), {"login": "bob", "password": PASSWORD, "next": "https://evil.example/"})
    assert answer["Location"] == "/"


# -- teams -----------------------------------------------------------------------------------------------------------


def test_an_administrator_makes_a_team_and_owns_it(cast: Cast) -> None:
    answer = cast.client(cast.ada).post(reverse("accounts:new-team"), {"name": "Day shift"})
    assert answer["Location"] == reverse("accounts:members", args=["day-shift"])
    assert Membership.objects.get(team__slug="day-shift").role == Role.OWNER


def test_a_taken_name_is_refused_at_its_field(cast: Cast) -> None:
    with pytest.raises(UserError) as refused:
        create_team(creator=cast.ada, name="  Night ")
    assert (refused.value.code, refused.value.where) == ("team_name_taken", {"field": "name"})
    page = cast.client(cast.ada).post(reverse("accounts:new-team"), {"name": "Night"})
    assert page.status_code == 422
    assert "already a team" in page.content.decode()
    assert Team.objects.count() == 2


# -- members ---------------------------------------------------------------------------------------------------------


def test_a_maintainer_changes_roles_up_to_their_own(cast: Cast) -> None:
    changed = change_role(team=cast.team, actor=cast.max, membership_id=membership(cast, cast.vera).pk, role=Role.MAINTAINER)
    assert changed.role == membership(cast, cast.vera).role == Role.MAINTAINER


@pytest.mark.parametrize(("who", "role"), [("bob", Role.OWNER), ("alice", Role.VIEWER), ("max", Role.OWNER)])
def test_nobody_acts_above_their_own_role(cast: Cast, who: str, role: Role) -> None:
    row = membership(cast, getattr(cast, who))
    with pytest.raises(UserError) as refused:
        change_role(team=cast.team, actor=cast.max, membership_id=row.pk, role=role)
    assert refused.value.code == "role_too_high"
    assert membership(cast, getattr(cast, who)).role == row.role


def test_a_maintainer_does_not_remove_an_owner(cast: Cast) -> None:
    with pytest.raises(UserError) as refused:
        remove_member(team=cast.team, actor=cast.max, membership_id=membership(cast, cast.alice).pk)
    assert refused.value.code == "role_too_high"
    assert membership(cast, cast.alice)


def test_the_last_owner_stays_owner(cast: Cast) -> None:
    row = membership(cast, cast.alice)
    for act in (
        lambda: remove_member(team=cast.team, actor=cast.alice, membership_id=row.pk),
        lambda: change_role(team=cast.team, actor=cast.alice, membership_id=row.pk, role=Role.MEMBER),
    ):
        with pytest.raises(UserError) as refused:
            act()
        assert refused.value.code == "last_owner"
    assert membership(cast, cast.alice).role == Role.OWNER
    change_role(team=cast.team, actor=cast.alice, membership_id=membership(cast, cast.bob).pk, role=Role.OWNER)
    remove_member(team=cast.team, actor=cast.alice, membership_id=row.pk)
    assert not Membership.objects.filter(team=cast.team, user=cast.alice).exists()


def test_a_viewer_may_leave_and_remove_nobody(cast: Cast) -> None:
    client = cast.client(cast.vera)
    assert client.post(reverse("accounts:remove", args=["night", membership(cast, cast.bob).pk]), {"confirm": "bob"}).status_code == 403
    assert membership(cast, cast.bob)
    leave = reverse("accounts:remove", args=["night", membership(cast, cast.vera).pk])
    assert client.post(leave, {"confirm": "vera"}).status_code == 422
    assert membership(cast, cast.vera)
    assert client.post(leave, {"confirm": "Night shift"})["Location"] == "/"
    assert client.get(reverse("accounts:members", args=["night"])).status_code == 404


def test_a_membership_of_another_team_is_not_there(cast: Cast) -> None:
    other = Membership.objects.get(team=cast.other_team)
    client = cast.client(cast.alice)
    assert client.post(reverse("accounts:remove", args=["night", other.pk])).status_code == 404
    assert client.post(reverse("accounts:set-role", args=["night", other.pk]), {"role": "viewer"}).status_code == 404
    assert Membership.objects.get(pk=other.pk).role == Role.OWNER


# -- invitations -----------------------------------------------------------------------------------------------------


def invited(cast: Cast, role: str = "member") -> tuple[Any, str]:
    page = cast.client(cast.max).post(reverse("accounts:invite", args=["night"]), {"role": role})
    found = re.search(r"http://testserver(/join/[\w-]+/)", page.content.decode())
    return page, found[1] if found else ""


def test_a_link_is_shown_once_and_stored_as_a_digest(cast: Cast) -> None:
    _, link = invited(cast)
    token = link.split("/")[2]
    row = Invitation.objects.get()
    assert row.token_sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert timedelta(hours=71, minutes=59) < row.expires_at - timezone.now() <= timedelta(hours=72)
    assert token not in cast.client(cast.max).get(reverse("accounts:members", args=["night"])).content.decode()


def test_an_invitation_is_not_above_the_inviter(cast: Cast) -> None:
    _, link = invited(cast, "owner")
    with pytest.raises(UserError) as refused:
        invite(team=cast.team, inviter=cast.max, role=Role.OWNER)
    assert (link, refused.value.code, Invitation.objects.count()) == ("", "role_too_high", 0)


def test_a_visitor_signs_up_with_a_link_and_it_works_once(cast: Cast) -> None:
    _, link = invited(cast)
    first = cast.client(None)
    assert first.get(link).status_code == 200
    filled = {"username": "nora", "password1": PASSWORD, "password2": PASSWORD}
    assert first.post(link, filled)["Location"] == "/"
    assert first.get(reverse("runs:list", args=["night"])).status_code == 200
    assert Membership.objects.get(user__username="nora").role == Role.MEMBER
    second = cast.client(None).post(link, {**filled, "username": "otto"})
    assert second.status_code == 410
    assert not User.objects.filter(username="otto").exists()


def test_a_weak_password_spends_nothing(cast: Cast) -> None:
    _, link = invited(cast)
    assert cast.client(None).post(link, {"username": "nora", "password1": "12345", "password2": "12345"}).status_code == 422
    assert Invitation.objects.get().used_at is None
    assert not User.objects.filter(username="nora").exists()


def test_whoever_is_signed_in_joins_by_a_button(cast: Cast) -> None:
    _, link = invited(cast, "viewer")
    client = cast.client(cast.charlie)
    assert client.post(link)["Location"] == "/"
    assert Membership.objects.get(team=cast.team, user=cast.charlie).role == Role.VIEWER


def test_a_member_does_not_spend_a_link(cast: Cast) -> None:
    token = invite(team=cast.team, inviter=cast.alice, role=Role.OWNER)
    with pytest.raises(UserError) as refused:
        join(token=token, user=cast.bob)
    assert refused.value.code == "already_member"
    assert membership(cast, cast.bob).role == Role.MEMBER
    assert join(token=token, user=cast.charlie).role == Role.OWNER


@pytest.mark.parametrize("spoil", ["expired", "inviter gone", "other token"])
def test_a_link_that_is_no_longer_good(cast: Cast, spoil: str) -> None:
    token = invite(team=cast.team, inviter=cast.max, role=Role.MEMBER)
    if spoil == "expired":
        Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif spoil == "inviter gone":
        User.objects.filter(pk=cast.max.pk).update(is_active=False)
    else:
        token = token[:-1] + ("a" if token[-1] != "a" else "b")
    assert cast.client(cast.charlie).post(reverse("accounts:join", args=[token])).status_code == 410
    assert not Membership.objects.filter(team=cast.team, user=cast.charlie).exists()


def test_the_members_page_asks_the_database_a_fixed_number_of_times(cast: Cast, django_assert_num_queries: Any) -> None:
    client = cast.client(cast.alice)
    url = reverse("accounts:members", args=["night"])
    client.get(url)
    with django_assert_num_queries(13):
        client.get(url)
    for number in range(10):
        person = User.objects.create_user(username=f"p{number}", password=None)
        Membership.objects.create(team=cast.team, user=person)
    with django_assert_num_queries(13):
        client.get(url)
