"""Getting in without being let in: sessions, resets, invitations, where a sign-in leads, what an answer's time says."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from jobs.errors import UserError
from tests.attacks.web.state import changed, state
from tests.flow.site import wait_for
from tests.webapp.cast import PASSWORD, Cast
from webapp.accounts.models import Invitation, Membership, Role, Team, User
from webapp.accounts.services.invite import invite
from webapp.accounts.services.join import join
from webapp.settings.env import ENV

# Where nobody who signs in is led.
ELSEWHERE = [
    "https://evil.example/", "//evil.example/", "///evil.example/", "/\\evil.example", "\\\\evil.example", "https:evil.example",
    "http:///evil.example", "/\t/evil.example/", "\x00//evil.example", "javascript:alert(1)", "data:text/html,x", " https://evil.example",
    "//evil.example%2f@testserver/", "https://testserver@evil.example/", "https://testserver.evil.example/", "ftp://testserver/",
    "https://evil.example\\@testserver/", "/\n/evil.example",
]  # fmt: skip


def sign_in(client: Client, name: str, password: str = PASSWORD, **more: str) -> Any:
    return client.post("/login/", {"login": name, "password": password, **more})


@pytest.mark.parametrize("where", ELSEWHERE)
def test_nobody_is_led_elsewhere(where: str, cast: Cast) -> None:
    for client, path, data in (
        (cast.client(None), "/login/", {"login": "bob", "password": PASSWORD}),
        (cast.client(cast.bob), "/logout/", {}),
        (cast.client(cast.bob), reverse("account_reauthenticate"), {"password": PASSWORD}),
    ):
        answer = client.post(path, {**data, "next": where})
        assert answer.status_code == 302, path
        assert re.fullmatch(r"/(?![/\\])[^\\\r\n\t]*", answer["Location"]), (path, answer["Location"])
        assert "evil" not in answer["Location"].partition("?")[0]


def test_a_path_that_looks_like_another_host_is_none(cast: Cast) -> None:
    for path in ("/%2fevil.example", "/%2f%2fevil.example/login", "/%5cevil.example", "/login//evil.example", "/t/%2f%2fevil.example/runs"):
        for client in (cast.client(None), cast.client(cast.bob)):
            answer = client.get(path)
            led = answer.get("Location", "")
            assert (answer.status_code, led) == (404, "") or re.match(r"/(login/\?next=|%2F|%5C|t/)", led), (path, led)


def test_a_session_from_before_is_not_the_one_after(cast: Cast) -> None:
    """Somebody has put a session of theirs into the browser, and waits for its owner to sign in."""
    client = cast.client(cast.charlie)
    planted = client.cookies["sessionid"].value
    victim = cast.client(None)
    victim.cookies["sessionid"] = planted
    victim.post("/logout/")
    victim.cookies["sessionid"] = planted
    assert sign_in(victim, "bob").status_code == 302
    after = victim.cookies["sessionid"].value
    assert after != planted
    assert not Session.objects.filter(session_key=planted).exists()
    assert client.get(reverse("accounts:profile")).status_code == 302
    # A key that nobody has given out is not taken up.
    other = cast.client(None)
    other.cookies["sessionid"] = "a" * 32
    sign_in(other, "max")
    assert other.cookies["sessionid"].value != "a" * 32


def test_signing_out_ends_the_session_on_the_server(cast: Cast) -> None:
    client = cast.client(None)
    sign_in(client, "bob")
    copied = client.cookies["sessionid"].value
    client.get("/logout/")
    assert client.get(reverse("accounts:profile")).status_code == 200
    client.post("/logout/")
    thief = cast.client(None)
    thief.cookies["sessionid"] = copied
    assert thief.get(reverse("accounts:profile")).status_code == 302


def test_a_wrong_name_and_a_wrong_password_look_alike(cast: Cast) -> None:
    User.objects.filter(pk=cast.max.pk).update(is_active=False)
    pages = set()
    for name in ("bob", "nobody", "max"):
        page = sign_in(cast.client(None), name, "wrong").content.decode()
        assert "not correct" in page
        pages.add(re.sub(rf'name="csrfmiddlewaretoken" value="\w+"|nonce="[^"]+"|value="{name}"', "", page))
    assert len(pages) == 1


# -- a forgotten password ----------------------------------------------------------------------------------------------

_LET_GO = threading.Event()


class SlowServer(EmailBackend):
    """A mail server that takes its time."""

    def send_messages(self, messages: Any) -> int:
        _LET_GO.wait(20)
        return int(super().send_messages(messages))


@pytest.mark.django_db(transaction=True)
def test_the_time_of_an_answer_does_not_say_whose_an_address_is(cast: Cast, settings: Any) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.SlowServer"
    User.objects.filter(pk=cast.bob.pk).update(email="bob@example.org")
    _LET_GO.clear()
    answers = []
    try:
        for number, address in enumerate(("bob@example.org", "nobody@example.org")):
            client = cast.client(None, REMOTE_ADDR=f"10.0.0.{number}")
            with connection.execute_wrapper(counted := Counted()):
                answers.append((address, client.post(reverse("account_reset_password"), {"email": address})))
            counted.tell(answers[-1][0])
        # Both are answered while the mail server still thinks, after the same questions to the database.
        assert [answer.status_code for _, answer in answers] == [302, 302]
        assert mail.outbox == []
        assert Counted.told["bob@example.org"] == Counted.told["nobody@example.org"]
    finally:
        _LET_GO.set()
    wait_for(lambda: mail.outbox, 20)
    assert [message.to for message in mail.outbox] == [["bob@example.org"]]


class Counted:
    """Which statements a request makes."""

    told: dict[str, list[str]] = {}

    def __init__(self) -> None:
        self.statements: list[str] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.statements.append(sql)
        return execute(sql, params, many, context)

    def tell(self, name: str) -> None:
        self.told[name] = self.statements


@pytest.mark.django_db(transaction=True)
def test_a_link_for_a_new_password_names_our_host_and_works_once_for_one_person(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "trusted_origins", "https://*.graft.example, https://graft.example:8443/")
    User.objects.filter(pk=cast.bob.pk).update(email="bob@example.org")
    headers = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "Host": "localhost:6666"}
    cast.client(None).post(reverse("account_reset_password"), {"email": "bob@example.org"}, headers=headers)
    wait_for(lambda: mail.outbox, 20)
    body = str(mail.outbox[0].body)
    assert "evil.example" not in body
    assert "6666" not in body + mail.outbox[0].subject
    link = re.search(r"https://graft.example:8443(/password/reset/key/\w+-(\S+)/)", body)
    assert link is not None
    # The key of one person does nothing under the number of another.
    other = link[1].replace(link[1].split("/")[-2].split("-")[0], "1", 1)
    assert "cannot be used" in cast.client(None).get(other).content.decode()
    visitor = cast.client(None)
    form = visitor.get(link[1])["Location"]
    assert link[2] not in form
    assert visitor.post(form, {"password1": "a-new-passphrase-1", "password2": "a-new-passphrase-1"}).status_code == 302
    assert "cannot be used" in cast.client(None).get(link[1]).content.decode()


# -- invitations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["removed", "lowered", "closed", "second factor"])
def test_an_invitation_ends_with_the_rights_of_whoever_made_it(cast: Cast, what: str) -> None:
    """A maintainer who is about to be removed leaves a way back."""
    token = invite(team=cast.team, inviter=cast.max, role=Role.MAINTAINER)
    mine = Membership.objects.filter(team=cast.team, user=cast.max)
    if what == "removed":
        mine.delete()
    elif what == "lowered":
        mine.update(role=Role.MEMBER)
    elif what == "closed":
        User.objects.filter(pk=cast.max.pk).update(is_active=False)
    else:
        Team.objects.filter(pk=cast.team.pk).update(require_two_factor=True)
    before = state()
    assert cast.client(cast.charlie).post(reverse("accounts:join", args=[token])).status_code == 410
    form = {"username": "again", "password1": "a-long-passphrase-1", "password2": "a-long-passphrase-1"}
    assert cast.client(None).post(reverse("accounts:join", args=[token]), form).status_code == 410
    assert changed(before) in ([], ["accounts.user"])
    assert not User.objects.filter(username="again").exists()


def test_an_invitation_is_stored_as_a_digest_and_ends_after_three_days(cast: Cast) -> None:
    token = invite(team=cast.team, inviter=cast.alice, role=Role.VIEWER)
    row = Invitation.objects.get()
    assert token not in str(state())
    assert timedelta(hours=71) < row.expires_at - timezone.now() <= timedelta(hours=72)
    for guess in (row.token_sha256, token[:-1], token.upper(), token + "A", " " + token):
        assert cast.client(cast.charlie).post(reverse("accounts:join", args=[guess])).status_code in (404, 410)
    Invitation.objects.update(expires_at=timezone.now())
    assert cast.client(cast.charlie).post(reverse("accounts:join", args=[token])).status_code == 410
    assert not Membership.objects.filter(team=cast.team, user=cast.charlie).exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_with_one_link_one_gets_in(cast: Cast) -> None:
    token = invite(team=cast.team, inviter=cast.alice, role=Role.VIEWER)
    people = [User.objects.create_user(f"p{number}") for number in range(8)]
    start = threading.Barrier(len(people))
    refused: list[str] = []

    def try_it(user: User) -> None:
        start.wait()
        try:
            join(token=token, user=user)
        except UserError as error:
            refused.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=try_it, args=(user,)) for user in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["invitation_invalid"] * 7
    assert Membership.objects.filter(team=cast.team, user__in=people).count() == 1
