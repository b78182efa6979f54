"""API tokens: shown once, good for their scopes within one team, for as long as they stand."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.webapp.cast import PASSWORD, Cast
from tests.webapp.test_every_url import Things, make_things
from webapp.accounts.access import visible_to
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import ApiToken, AuditEvent, Membership, Role, User
from webapp.accounts.scopes import Scope
from webapp.accounts.services.members import remove_member
from webapp.accounts.services.tokens import make_token, revoke_token, tokens_of
from webapp.runs.models import Run


@pytest.fixture
def things(cast: Cast) -> Things:
    return make_things(cast)


def token_of(cast: Cast, user: User, *scopes: Scope, days: int | None = 30) -> str:
    return make_token(team=cast.team, user=user, name="nightly", scopes=scopes or [Scope.RUNS_READ], days=days)[1]


def ask(secret: str, url: str, **headers: str) -> Any:
    return Client().get(url, headers={"Authorization": f"Bearer {secret}", **headers})


def test_a_token_is_made_after_the_password_and_shown_once(things: Things) -> None:
    client = things.cast.client(None)
    client.post("/login/", {"login": "vera", "password": PASSWORD})
    url = reverse("accounts:tokens", args=["night"])
    wanted = {"name": "nightly", "days": "30", "scope": ["runs:read", "data:read"]}
    asked = client.post(url, wanted)
    assert asked["Location"].startswith(reverse("account_reauthenticate"))
    page = client.post(asked["Location"], {"password": PASSWORD, "next": url}).content.decode()
    secret = re.search(r'id="secret">(graft_[\w-]+)<', page)
    assert secret is not None
    assert f"Bearer {secret[1]}" in page
    row = ApiToken.objects.get(user=things.cast.vera)
    assert row.sha256 == hashlib.sha256(secret[1].encode()).hexdigest()
    assert (row.prefix, row.scopes) == (secret[1][:12], ["runs:read", "data:read"])
    assert timedelta(days=29) < (row.expires_at or timezone.now()) - timezone.now() <= timedelta(days=30)
    again = client.get(url).content.decode()
    assert (secret[1] in again, row.prefix in again) == (False, True)
    assert AuditEvent.objects.get(action=Action.TOKEN_CREATED).detail == {"scopes": ["runs:read", "data:read"], "days": 30}


def test_what_is_missing_is_said_at_its_field_and_nothing_is_made(cast: Cast) -> None:
    page = cast.client(cast.bob).post(reverse("accounts:tokens", args=["night"]), {"name": "x", "days": "31"})
    assert page.status_code == 422
    assert "Choose at least one." in page.content.decode()
    assert not ApiToken.objects.exists()


@pytest.mark.parametrize("name", ["runs:series", "runs:blocks", "artifacts:download", "artifacts:file", "artifacts:sha256"])
def test_a_token_opens_what_a_session_opens(things: Things, name: str) -> None:
    secret = token_of(things.cast, things.cast.vera)
    assert ask(secret, things.url(name)).status_code == 200
    assert Client().get(things.url(name)).status_code == 302
    downloads = AuditEvent.objects.filter(action=Action.ARTIFACT_DOWNLOADED)
    assert all((event.actor, event.detail["by"]) == (things.cast.vera, "API token") for event in downloads)
    assert downloads.exists() == (name in ("artifacts:download", "artifacts:file"))


def test_a_token_opens_no_page(things: Things) -> None:
    secret = token_of(things.cast, things.cast.alice, *Scope)
    refused = ask(secret, things.url("runs:detail"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")


def test_a_token_without_the_scope_is_told_so(things: Things) -> None:
    refused = ask(token_of(things.cast, things.cast.alice, Scope.DATA_READ), things.url("runs:series"))
    assert refused.status_code == 403
    assert "runs:read" in refused.json()["error"]["message"]
    assert refused["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'


@pytest.mark.parametrize("spoil", ["unknown", "expired", "revoked", "maker closed"])
def test_a_token_that_is_no_longer_good(things: Things, spoil: str) -> None:
    cast = things.cast
    secret = token_of(cast, cast.bob)
    rows = ApiToken.objects.filter(user=cast.bob)
    if spoil == "unknown":
        secret = f"{secret[:-1]}{'a' if secret[-1] != 'a' else 'b'}"
    elif spoil == "expired":
        rows.update(expires_at=timezone.now())
    elif spoil == "revoked":
        revoke_token(team=cast.team, actor=cast.bob, token_id=rows.get().pk)
    else:
        User.objects.filter(pk=cast.bob.pk).update(is_active=False)
    refused = ask(secret, things.url("runs:series"))
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')


def test_a_token_ends_at_its_team(things: Things) -> None:
    cast = things.cast
    Membership.objects.create(team=cast.other_team, user=cast.alice, role=Role.OWNER)
    _, secret = make_token(team=cast.other_team, user=cast.alice, name="other", scopes=[Scope.RUNS_READ], days=None)
    assert ask(secret, things.url("runs:series")).status_code == 404
    assert cast.client(cast.alice).get(things.url("runs:series")).status_code == 200
    cast.alice.only_team = cast.other_team.pk
    assert not visible_to(cast.alice, Run.objects.all()).exists()


def test_a_token_ends_when_its_maker_leaves_the_team(things: Things) -> None:
    cast = things.cast
    secret = token_of(cast, cast.bob)
    remove_member(team=cast.team, actor=cast.max, membership_id=cast.team.memberships.get(user=cast.bob).pk)
    Membership.objects.create(team=cast.team, user=cast.bob)
    assert ask(secret, things.url("runs:series")).status_code == 401


def test_a_token_of_a_person_whose_team_wants_a_second_factor(things: Things) -> None:
    cast = things.cast
    secret = token_of(cast, cast.bob)
    cast.team.require_two_factor = True
    cast.team.save()
    assert ask(secret, things.url("runs:series")).status_code == 404


def test_the_last_use_is_noted_once_a_minute(things: Things) -> None:
    secret = token_of(things.cast, things.cast.bob)
    ask(secret, things.url("runs:series"))
    row = ApiToken.objects.get(user=things.cast.bob)
    assert (row.last_used_from, row.last_used_at is not None) == ("127.0.0.1", True)
    ask(secret, things.url("runs:series"))
    assert ApiToken.objects.get(user=things.cast.bob).last_used_at == row.last_used_at
    ApiToken.objects.update(last_used_at=timezone.now() - timedelta(seconds=61))
    ask(secret, things.url("runs:series"))
    assert (ApiToken.objects.get(user=things.cast.bob).last_used_at or timezone.now()) > row.last_used_at  # type: ignore[operator]


def test_everybody_sees_their_own_and_who_manages_sees_all(cast: Cast) -> None:
    for person in (cast.bob, cast.vera):
        token_of(cast, person)
    assert [row.user for row in tokens_of(cast.team, cast.vera)] == [cast.vera]
    assert {row.user for row in tokens_of(cast.team, cast.max)} == {cast.bob, cast.vera}
    bobs = ApiToken.objects.get(user=cast.bob)
    with pytest.raises(PermissionDenied):
        revoke_token(team=cast.team, actor=cast.vera, token_id=bobs.pk)
    with pytest.raises(Http404):
        revoke_token(team=cast.other_team, actor=cast.charlie, token_id=bobs.pk)
    assert ApiToken.objects.get(pk=bobs.pk).revoked_at is None
    revoke_token(team=cast.team, actor=cast.max, token_id=bobs.pk)
    assert AuditEvent.objects.get(action=Action.TOKEN_REVOKED).detail == {"of": "bob"}
