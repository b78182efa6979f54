"""Every route and every method, walked with forms that would do something: nobody gets in who may not, and nothing happens."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver, reverse

from tests.attacks.web.state import changed, state
from tests.webapp.cast import Cast
from tests.webapp.test_every_url import BELONGING, ROUTES, Things, names_of
from webapp.accounts.models import Membership, User
from webapp.accounts.scopes import Scope
from webapp.accounts.services.tokens import make_token

UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


def forms(things: Things) -> dict[str, str]:
    """Fields that make most of the forms valid, all in one."""
    names = {"confirm": "first", "name": "Mine", "role": "owner", "email": "c@example.org", "days": "30", "do": "stop"}
    ids = {"run": str(things.run.pk), "draining": "1", "priority": "0", "direction": "top", "active": "0", "require": "on", "epochs": "1"}
    rest = {"url": "https://example.com/hook", "ended": "on", "runs": "all", "tag": "mine", "scope": "runs:read", "repository": "a/b"}
    return {**names, **ids, **rest}


def walk(client: Client, things: Things, names: list[str], *, reads: bool = True, **headers: str) -> dict[tuple[str, str], int]:
    """Each method of each route, with a form where there can be one: the statuses."""
    found = {}
    for name in names:
        url = things.url(name)
        for method in ROUTES[name].methods.split():
            if not reads and method not in UNSAFE:
                continue
            sent = {"Tus-Resumable": "1.0.0", "Upload-Length": "5", "Upload-Offset": "0", **headers}
            if method == "POST":
                answer: Any = client.post(url, forms(things), headers=sent)
            else:
                kind = "application/offset+octet-stream"
                answer = client.generic(method, url, b"x" if method == "PATCH" else b"", content_type=kind, headers=sent)
            found[name, method] = answer.status_code
    return found


@pytest.mark.parametrize("person", [None, "charlie", "ada", "removed", "closed"])
def test_who_does_not_belong_changes_nothing_anywhere(things: Things, person: str | None) -> None:
    """A visitor, the owner of another team, an administrator of the site, a member who was removed, one whose account was closed."""
    cast = things.cast
    client = cast.client(cast.bob if person in ("removed", "closed") else getattr(cast, person) if person else None)
    client.get(reverse("home"))
    if person == "removed":
        Membership.objects.filter(user=cast.bob, team=cast.team).delete()
        things.values["membership"] = cast.team.memberships.get(user=cast.vera).pk
    elif person == "closed":
        User.objects.filter(pk=cast.bob.pk).update(is_active=False)
    before = state()
    statuses = set(walk(client, things, BELONGING).values())
    assert statuses == ({302} if person in (None, "closed") else {404})
    assert changed(before) == []


def test_a_viewer_changes_nothing_but_what_is_their_own(things: Things) -> None:
    client = things.cast.client(things.cast.vera)
    before = state()
    found = walk(client, things, [name for name in BELONGING if "POST" not in ROUTES[name].viewer])
    for (name, method), status in found.items():
        assert (status == 200) == (method in ROUTES[name].viewer.split()), (name, method, status)
        # What is somebody else's own is not there for them, as for everybody.
        assert status in ((200, 403, 404) if ROUTES[name].own else (200, 403)), (name, method, status)
    # A download is written down.
    assert changed(before) == ["accounts.auditevent"]


def test_an_id_of_another_team_under_ones_own_is_not_there(things: Things) -> None:
    """Charlie owns a team: its slug opens its pages, and none of Alice's things on them."""
    client = things.cast.client(things.cast.charlie)
    things.values["slug"] = "others"
    nested = [name for name in BELONGING if ROUTES[name].args[0] == "slug" and set(ROUTES[name].args[1:]) - {"form", "way", "step"}]
    assert len(nested) > 15
    before = state()
    assert set(walk(client, things, nested).values()) == {404}
    assert changed(before) == []


def test_an_id_of_another_team_in_a_form_or_a_query_is_not_there(things: Things) -> None:
    client = things.cast.client(things.cast.charlie)
    version, model, run = things.values["version"], things.values["model"], things.run.pk
    bulk = reverse("runs:bulk", args=["others"])
    before = state()
    for action in ("archive", "tag", "stop", "compare", "clone", "unarchive", "untag"):
        answer = client.post(bulk, {"do": action, "run": str(run), "tag": "mine"}, follow=True)
        assert b"tick a run first" in answer.content
    for name in ("runs:whole", "experiments:new", "runs:combine"):
        form = {"dataset_version": version, "base_model": model, "method": "lora", "name": "x", "adapters": run, "task": "causal_lm"}
        assert client.post(reverse(name, args=["others"]), form).status_code == 422
    for query in ("clone", "analysis"):
        assert client.get(reverse("runs:new", args=["others"]), {query: str(run)}).status_code == 404
    shown = client.get(reverse("runs:compare", args=["others"]), {"run": str(run)})
    assert str(run) not in shown.content.decode()
    assert changed(before) in ([], ["runs.rundraft"])


def test_without_the_token_of_the_form_nothing_is_done(things: Things) -> None:
    """Cross-site forms: a browser that is signed in, and a page that is not ours."""
    cast = things.cast
    client = cast.client(cast.ada, enforce_csrf_checks=True)
    Membership.objects.create(team=cast.team, user=cast.ada, role="owner")
    names = [name for name, route in ROUTES.items() if set(route.methods.split()) & set(UNSAFE)]
    token = client.get(reverse("accounts:profile")).cookies["csrftoken"].value
    before = state()
    for evil in ({}, {"Origin": "https://evil.example", "X-CSRFToken": token}, {"Origin": "null", "X-CSRFToken": token}):
        assert set(walk(client, things, names, reads=False, **evil).values()) == {403}, evil
    assert changed(before) == []


def test_a_token_of_the_api_beside_a_session_does_not_lift_the_check_of_forms(things: Things) -> None:
    cast = things.cast
    _token, secret = make_token(team=cast.team, user=cast.alice, name="all", scopes=[*Scope], days=None)
    client = cast.client(cast.alice, enforce_csrf_checks=True)
    before = state()
    for name in BELONGING:
        for method in set(ROUTES[name].methods.split()) & set(UNSAFE):
            answer = client.generic(method, things.url(name), headers={"Authorization": f"Bearer {secret}", "Tus-Resumable": "1.0.0"})
            assert answer.status_code == 403, (name, method)
    assert changed(before) == []


def test_what_needs_no_session_is_a_short_list() -> None:
    public = {name for name, route in ROUTES.items() if route.who == "any"}
    expected = {"healthz", "readyz", "accounts:join"}
    assert {name for name in public if not name.startswith("account_")} == expected
    assert not any(name.startswith("account_signup") for name in names_of(get_resolver().url_patterns))


def test_ids_are_not_counted_through(cast: Cast, things: Things) -> None:
    for name, value in things.values.items():
        if name in ("slug", "number", "part", "form", "way", "step", "token", "uidb36", "key"):
            continue
        assert isinstance(value, uuid.UUID), name
        assert value.version == 4
