"""Signing in: limits, second factor, what is asked for again, sessions, and what of it stands in the audit log."""

from __future__ import annotations

import re
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.core import mail
from django.core.cache import cache
from django.test import Client, TestCase
from django.urls import reverse
from django.utils import timezone

from tests.flow.site import wait_for
from tests.webapp.cast import PASSWORD, Cast
from webapp.accounts.access import in_force
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import AuditEvent, Membership, User

LOGIN = "/login/"


def sign_in(client: Client, name: str, password: str = PASSWORD, **headers: Any) -> Any:
    return client.post(LOGIN, {"login": name, "password": password}, **headers)


def code_of(secret: str) -> str:
    return str(format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time())))))


def with_second_factor(cast: Cast, name: str) -> tuple[Client, str]:
    """A browser whose person has set up the authenticator app by its pages, and the app's key."""
    client = cast.client(None)
    sign_in(client, name)
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    page = client.get(reverse("mfa_activate_totp"))
    secret = re.search(r'id="secret" value="(\w+)"', page.content.decode())
    assert secret is not None
    with TestCase.captureOnCommitCallbacks(execute=True):
        answer = client.post(reverse("mfa_activate_totp"), {"code": code_of(secret[1])})
    assert answer["Location"] == reverse("mfa_view_recovery_codes")
    return client, secret[1]


# -- name and password -----------------------------------------------------------------------------------------------


def test_nobody_makes_an_account_alone(cast: Cast) -> None:
    client = cast.client(None)
    assert client.get("/signup/").status_code == client.get("/account/signup/").status_code == 404
    assert "signup" not in client.get(LOGIN).content.decode()


def test_wrong_passwords_for_one_name_are_limited_from_one_address(cast: Cast) -> None:
    for host in ("localhost", "testserver", "127.0.0.1", "localhost:1", "localhost:2"):
        tried = sign_in(cast.client(None), "Bob", "wrong", REMOTE_ADDR="10.0.0.9", HTTP_HOST=host)
        assert "too many" not in tried.content.decode().lower()
    refused = sign_in(cast.client(None), "bob", PASSWORD, REMOTE_ADDR="10.0.0.9", HTTP_HOST="localhost:3")
    assert refused.status_code == 200
    assert "Too many failed login attempts" in refused.content.decode()
    assert sign_in(cast.client(None), "max", REMOTE_ADDR="10.0.0.9").status_code == 302
    # Bob is not shut out by somebody elsewhere.
    assert sign_in(cast.client(None), "bob", REMOTE_ADDR="10.0.0.8").status_code == 302


def test_wrong_passwords_for_one_name_are_limited_slowly_from_everywhere(cast: Cast, settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {**settings.ACCOUNT_RATE_LIMITS, "login_failed_anywhere": "4/h/key"}
    for number in range(3):
        assert sign_in(cast.client(None), "bob", "wrong", REMOTE_ADDR=f"10.0.0.{number}").status_code == 200
    # The right password is no failed try.
    for number in range(3, 6):
        assert sign_in(cast.client(None), "bob", REMOTE_ADDR=f"10.0.0.{number}").status_code == 302
    sign_in(cast.client(None), "bob", "wrong", REMOTE_ADDR="10.0.0.7")
    assert "Too many failed login attempts" in sign_in(cast.client(None), "bob", REMOTE_ADDR="10.0.0.8").content.decode()


def test_tries_from_one_address_are_limited_for_any_name(cast: Cast) -> None:
    for number in range(10):
        sign_in(cast.client(None), f"nobody{number}", "wrong", REMOTE_ADDR="10.0.0.1")
    assert sign_in(cast.client(None), "bob", REMOTE_ADDR="10.0.0.1").status_code == 200
    assert sign_in(cast.client(None), "bob", REMOTE_ADDR="10.0.0.2").status_code == 302


def test_a_flood_is_answered_by_a_page_of_ours(cast: Cast) -> None:
    answers = [sign_in(cast.client(None), "", "", REMOTE_ADDR="10.0.0.1") for _ in range(31)]
    assert [answer.status_code for answer in answers[-2:]] == [200, 429]
    assert "Too many tries" in answers[-1].content.decode()


def test_the_limits_are_kept_where_every_process_sees_them(cast: Cast, django_assert_max_num_queries: Any) -> None:
    cache.set("probe", 1)
    with django_assert_max_num_queries(1) as asked:
        assert cache.get("probe") == 1
    assert len(asked.captured_queries) == 1


def test_a_failed_sign_in_stands_in_the_log_of_each_team_of_the_person(cast: Cast) -> None:
    Membership.objects.create(team=cast.other_team, user=cast.bob)
    sign_in(cast.client(None), "bob", "wrong", REMOTE_ADDR="10.0.0.7")
    sign_in(cast.client(None), "stranger", "wrong")
    events = AuditEvent.objects.filter(action=Action.SIGN_IN_FAILED)
    assert {event.team for event in events} == {cast.team, cast.other_team}
    assert {(event.actor, event.address) for event in events} == {(cast.bob, "10.0.0.7")}
    assert "wrong" not in str([event.detail for event in events])


def test_a_new_password_ends_the_other_sessions(cast: Cast) -> None:
    here, there = cast.client(None), cast.client(None)
    for client in (here, there):
        sign_in(client, "bob")
    changed = {"oldpassword": PASSWORD, "password1": "another-long-passphrase", "password2": "another-long-passphrase"}
    assert here.post(reverse("account_change_password"), changed)["Location"] == reverse("accounts:profile")
    assert here.get(reverse("accounts:profile")).status_code == 200
    assert there.get(reverse("accounts:profile")).status_code == 302
    assert AuditEvent.objects.filter(team=cast.team, action=Action.PASSWORD_CHANGED, actor=cast.bob).count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_forgotten_password_is_reset_by_mail_where_the_site_sends_any(cast: Cast, settings: Any) -> None:
    client = cast.client(None)
    assert "changepassword" in client.get(reverse("account_reset_password")).content.decode()
    settings.GRAFT_EMAIL = True
    User.objects.filter(pk=cast.bob.pk).update(email="bob@example.org")
    for address in ("bob@example.org", "nobody@example.org"):
        assert client.post(reverse("account_reset_password"), {"email": address})["Location"] == reverse("account_reset_password_done")
    # Another thread sends it, after the answer.
    wait_for(lambda: mail.outbox, 10)
    assert [message.to for message in mail.outbox] == [["bob@example.org"]]
    link = re.search(r"http://testserver(/password/reset/\S+)", str(mail.outbox[0].body))
    assert link is not None
    form = client.get(link[1])["Location"]
    new = "yet-another-passphrase"
    answer = client.post(form, {"password1": new, "password2": new})
    assert answer.status_code == 302, answer.content.decode()
    assert answer["Location"] == reverse("account_reset_password_from_key_done")
    assert sign_in(client, "bob", new).status_code == 302
    assert "cannot be used" in cast.client(None).get(link[1]).content.decode()


# -- a second factor -------------------------------------------------------------------------------------------------


def test_a_second_factor_is_asked_for_and_a_recovery_code_works_once(cast: Cast) -> None:
    client, secret = with_second_factor(cast, "bob")
    codes = re.findall(r"<li>(\d{8})</li>", client.get(reverse("mfa_view_recovery_codes")).content.decode())
    assert len(codes) == 10
    for code, enters in ((codes[0], True), (codes[0], False), ("000000", False)):
        visitor = cast.client(None)
        assert sign_in(visitor, "bob")["Location"] == reverse("mfa_authenticate")
        assert visitor.get(reverse("accounts:profile")).status_code == 302
        assert (visitor.post(reverse("mfa_authenticate"), {"code": code}).status_code == 302) == enters
    assert secret not in str(Authenticator.objects.get(user=cast.bob, type="totp").data)
    actions = list(AuditEvent.objects.filter(team=cast.team, actor=cast.bob).order_by("at").values_list("action", flat=True))
    assert actions == [Action.TWO_FACTOR_ON, Action.SIGN_IN_FAILED, Action.SIGN_IN_FAILED]


def test_a_code_of_the_app_signs_in(cast: Cast) -> None:
    _, secret = with_second_factor(cast, "bob")
    cache.clear()
    visitor = cast.client(None)
    sign_in(visitor, "bob")
    assert visitor.post(reverse("mfa_authenticate"), {"code": code_of(secret)})["Location"] == "/"
    assert visitor.get(reverse("accounts:profile")).status_code == 200


def test_turning_it_off_asks_for_the_password_again(cast: Cast) -> None:
    with_second_factor(cast, "bob")
    client = cast.client(cast.bob)
    answer = client.get(reverse("mfa_deactivate_totp"))
    assert answer["Location"].startswith((reverse("account_reauthenticate"), reverse("mfa_reauthenticate")))
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    client.post(reverse("mfa_deactivate_totp"))
    assert not Authenticator.objects.filter(user=cast.bob).exists()
    assert AuditEvent.objects.filter(team=cast.team, action=Action.TWO_FACTOR_OFF).count() == 1


def test_a_team_may_ask_everybody_for_one(cast: Cast) -> None:
    client, _ = with_second_factor(cast, "alice")
    answer = client.post(reverse("accounts:team-two-factor", args=["night"]), {"require": "on"})
    assert answer["Location"] == reverse("accounts:settings", args=["night"])
    page = reverse("accounts:members", args=["night"])
    assert client.get(page).status_code == 200
    bob = cast.client(cast.bob)
    assert bob.get(page)["Location"] == reverse("mfa_index")
    assert bob.get(page, headers={"Accept": "application/json"}).status_code == 404
    assert "second factor" in bob.get("/").content.decode()
    assert not in_force(Membership.objects.filter(user=cast.bob)).exists()
    bob, _ = with_second_factor(cast, "bob")
    assert in_force(Membership.objects.filter(user=cast.bob)).exists()
    assert bob.get(page).status_code == 200


def test_an_owner_without_one_is_not_locked_out(cast: Cast) -> None:
    client = cast.client(None)
    sign_in(client, "alice")
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    client.post(reverse("accounts:team-two-factor", args=["night"]), {"require": "on"})
    cast.team.refresh_from_db()
    assert not cast.team.require_two_factor
    assert not AuditEvent.objects.filter(action=Action.TWO_FACTOR_REQUIRED).exists()


# -- asking again, sessions, profile ---------------------------------------------------------------------------------


def test_what_is_grave_goes_on_after_the_password(cast: Cast) -> None:
    client = cast.client(cast.alice)
    url = reverse("accounts:hand-over", args=["night", Membership.objects.get(team=cast.team, user=cast.max).pk])
    answer = client.post(url, {"confirm": "Night shift"})
    assert answer["Location"].startswith(reverse("account_reauthenticate"))
    assert Membership.objects.get(team=cast.team, user=cast.max).role == "maintainer"
    assert client.post(answer["Location"], {"password": "wrong"}).status_code == 200
    done = client.post(answer["Location"], {"password": PASSWORD, "next": url})
    assert done["Location"] == reverse("accounts:members", args=["night"])
    roles = dict(Membership.objects.filter(team=cast.team).values_list("user__username", "role"))
    assert (roles["max"], roles["alice"]) == ("owner", "maintainer")


def test_other_sessions_are_listed_and_signed_out(cast: Cast) -> None:
    here = cast.client(None, HTTP_USER_AGENT="Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0")
    there = cast.client(None, HTTP_USER_AGENT="curl/8.1", REMOTE_ADDR="10.1.1.1")
    for client in (here, there):
        sign_in(client, "bob")
    page = here.get(reverse("usersessions_list")).content.decode()
    assert ("Firefox, Linux" in page, "curl" in page, "10.1.1.1" in page) == (True, True, True)
    here.post(reverse("usersessions_list"))
    assert there.get(reverse("accounts:profile")).status_code == 302
    assert here.get(reverse("accounts:profile")).status_code == 200
    assert Session.objects.count() == 1


def test_the_last_use_of_a_session_is_noted_now_and_then(cast: Cast) -> None:
    client = cast.client(cast.bob)
    url = reverse("accounts:profile")
    client.get(url)
    first = UserSession.objects.get().last_seen_at
    client.get(url)
    assert UserSession.objects.get().last_seen_at == first
    session = client.session
    session["seen_at"] = timezone.now().timestamp() - 301
    session.save()
    client.get(url)
    assert UserSession.objects.get().last_seen_at > first


def test_language_and_time_zone_are_kept_and_used(cast: Cast) -> None:
    client = cast.client(cast.bob)
    url = reverse("accounts:profile")
    assert client.post(url, {"language": "fi", "time_zone": "Europe/Helsinki"})["Location"] == url
    page = client.get(url).content.decode()
    assert '<html lang="fi" data-time-zone="Europe/Helsinki">' in page
    assert client.post(url, {"language": "xx", "time_zone": "Mars"}).status_code == 422
    cast.bob.refresh_from_db()
    assert (cast.bob.language, cast.bob.time_zone) == ("fi", "Europe/Helsinki")


@pytest.mark.parametrize("name", ["profile", "members"])
def test_a_closed_account_opens_nothing(cast: Cast, name: str) -> None:
    client = cast.client(cast.bob)
    User.objects.filter(pk=cast.bob.pk).update(is_active=False)
    url = reverse(f"accounts:{name}", args=["night"] if name == "members" else [])
    assert client.get(url).status_code == 302
    visitor = cast.client(None)
    sign_in(visitor, "bob")
    assert visitor.get(url).status_code == 302
