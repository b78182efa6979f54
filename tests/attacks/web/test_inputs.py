"""What people type, in addresses, forms and names: it changes no query, sets no field that is not asked for, and is shown as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.urls import reverse

from tests.attacks.web.state import changed, state
from tests.webapp.cast import PASSWORD, Cast
from tests.webapp.test_every_url import ROUTES, Things
from webapp.accounts.models import Membership, Role, User
from webapp.accounts.services.invite import invite
from webapp.runs.models import Run
from webapp.runs.priorities import Priority

# A value for every name that a query may hold.
ODD = [
    "\0",
    "-1",
    "1e999",
    "nan",
    "-inf",
    "9" * 5000,
    "٣",
    "../../etc/passwd",
    "' OR 1=1 --",
    "{{7*7}}",
    "a" * 10_000,
    "\u202e",
    "%00",
    "[]",
    "user__password",
    "-created_by__password",
    "0001-01-01",
    "9999-12-31T23:59:59+00:00",
    "00000000-0000-0000-0000-000000000000",
    "{",
    "null",
]
# Every name that a query or a form of ours has, and some that it has not.
NAMES = re.findall(
    r"\S+",
    """q sort order order_by group only col closed page kind across split model format dataset base method clone analysis take
    with run x keys start end buckets smoothing after person action days template experiment epochs step level find prompt
    outcome axis rank log licence archived way state next user__password__startswith team__memberships__user__password
    pk__in created_by team fields name do tag back priority direction role email url confirm repository draft go scope runs
    language time_zone storage uploads train_upload max_length label text value use""",
)
# Each of these starts a process that reads a file: once is enough.
BOXED = ("checks:rows", "datasets:preview", "runs:advice", "catalog:add")
ROUNDS = 2


def odd_ones(name: str) -> Iterator[dict[str, str]]:
    """Twice all names, each with another value every time."""
    for turn in range(1 if name in BOXED else ROUNDS):
        yield {key: ODD[(place * 5 + turn) % len(ODD)] for place, key in enumerate(NAMES)}


def test_no_value_in_a_query_brings_a_page_down(things: Things) -> None:
    client = things.cast.client(things.cast.alice)
    client.raise_request_exception = False
    before = state()
    for name, route in ROUTES.items():
        if "GET" in route.methods.split() and route.who != "any":
            for odd in odd_ones(name):
                assert client.get(things.url(name), odd).status_code < 500, (name, odd)
    # What reading writes: a draft that is begun, and that something was downloaded.
    assert set(changed(before)) <= {"runs.rundraft", "accounts.auditevent"}


def test_no_value_in_a_form_brings_a_page_down(things: Things) -> None:
    client = things.cast.client(things.cast.alice)
    client.raise_request_exception = False
    for name, route in ROUTES.items():
        if "POST" in route.methods.split() and not name.startswith("account_log"):
            for odd in odd_ones(name):
                headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "".join(filter(str.isalnum, odd["q"]))[:30]}
                assert client.post(things.url(name), odd, headers=headers).status_code < 500, (name, odd)
    assert User.objects.filter(username="alice", is_active=True).exists()


def test_a_list_is_not_sorted_or_filtered_by_what_it_does_not_show(things: Things) -> None:
    """Sorting by a secret tells it, a letter at a time."""
    client = things.cast.client(things.cast.vera)
    for number, person in enumerate((things.cast.bob, things.cast.alice, things.cast.max)):
        Run.objects.create(**{**_columns(things.run), "name": f"run-{number}", "created_by": person})
        User.objects.filter(pk=person.pk).update(password=f"{number}-secret")
    for name in (
        "runs:list",
        "artifacts:list",
        "catalog:list",
        "datasets:list",
        "experiments:list",
        "runs:compare",
        "accounts:members",
        "quotas:usage",
    ):
        url = things.url(name)
        plain = _seen(client.get(url))
        for word in ("sort", "order", "order_by"):
            for field in ("-created_by__password", "team__memberships__user__password", "?", "spec"):
                assert _seen(client.get(url, {word: field})) == plain, (name, word, field)
        for lookup in ("created_by__password__startswith", "team__slug", "pk__in", "created_by__is_superuser"):
            assert _seen(client.get(url, {lookup: "0-"})) == plain, (name, lookup)
    for search in ('created_by__password:"0"', "password:0", "created_by.password:0", "team:others", "person__password:0"):
        page = client.get(things.url("runs:list"), {"q": search}).content.decode()
        assert "run-0" not in page or "run-2" in page, search


def _columns(run: Run) -> dict[str, Any]:
    names = ("team", "dataset_version", "base_model", "method", "spec", "state", "attempt", "lease_expires_at", "queued_at")
    return {name: getattr(run, name) for name in names}


def _seen(answer: Any) -> list[str]:
    """The things of a page in their order."""
    assert answer.status_code == 200
    words = (word.strip() for word in answer.content.decode().replace(">", "<").split("<"))
    return [word for word in words if word.startswith(("run-", "first", "Tiny", "Tickets", "Grid"))]


# -- fields that nobody asked for --------------------------------------------------------------------------------------


def test_a_field_that_a_form_does_not_have_is_not_set(things: Things) -> None:
    cast = things.cast
    greedy = {
        "is_superuser": "on", "is_staff": "on", "is_active": "", "password": "x", "username": "root", "id": "1", "pk": "1", "role": "owner",
        "team": str(cast.other_team.pk), "team_id": str(cast.other_team.pk), "user": str(cast.ada.pk), "created_by": str(cast.ada.pk),
        "state": "succeeded", "attempt": "99", "desired": "run", "slug": "others", "require_two_factor": "on", "revoked_at": "",
        "sha256": "0",
        "generation": "7", "owner": "x", "lease_expires_at": "2099-01-01", "priority": "10", "only_team": "", "last_login": "2000-01-01",
    }  # fmt: skip
    bob = cast.client(cast.bob)
    before = state(without=frozenset({"accounts.user"}))
    assert bob.post(reverse("accounts:profile"), {**greedy, "language": "fi", "time_zone": ""}).status_code == 302
    cast.bob.refresh_from_db()
    assert (cast.bob.is_superuser, cast.bob.is_staff, cast.bob.is_active, cast.bob.username, cast.bob.language) == (
        False,
        False,
        True,
        "bob",
        "fi",
    )
    assert cast.bob.check_password(PASSWORD)
    assert changed(before) == []

    alice = cast.client(cast.alice)
    assert alice.post(reverse("accounts:rename-team", args=["night"]), {**greedy, "name": "Day shift"}).status_code == 302
    cast.team.refresh_from_db()
    assert (cast.team.name, cast.team.slug, cast.team.require_two_factor) == ("Day shift", "night", False)

    Run.objects.filter(pk=things.run.pk).update(state="paused")
    assert bob.post(reverse("runs:resume", args=[things.run.pk]), greedy).status_code == 302
    things.run.refresh_from_db()
    run = things.run
    assert (run.state, run.attempt, run.team, run.created_by) == ("queued", 1, cast.team, cast.alice)
    assert run.priority == Priority.NORMAL

    token = _invited(cast)
    form = {**greedy, "username": "new", "password1": "a-long-passphrase-1", "password2": "a-long-passphrase-1"}
    assert cast.client(None).post(reverse("accounts:join", args=[token]), form).status_code == 302
    new = User.objects.get(username="new")
    assert (new.is_superuser, new.is_staff, new.memberships.get().role, new.memberships.get().team) == (False, False, "viewer", cast.team)


def _invited(cast: Cast) -> str:
    return invite(team=cast.team, inviter=cast.alice, role=Role.VIEWER)


def test_nobody_gives_a_role_above_their_own(cast: Cast) -> None:
    client = cast.client(cast.max)
    bob = Membership.objects.get(team=cast.team, user=cast.bob)
    before = state()
    for role in ("owner", "OWNER", "superuser", "", "owner\0"):
        client.post(reverse("accounts:set-role", args=["night", bob.pk]), {"role": role})
        client.post(reverse("accounts:invite", args=["night"]), {"role": role})
    mine = Membership.objects.get(team=cast.team, user=cast.max)
    client.post(reverse("accounts:set-role", args=["night", mine.pk]), {"role": "owner"})
    assert client.post(reverse("accounts:hand-over", args=["night", mine.pk]), {"confirm": "Night shift"}).status_code == 403
    assert changed(before) == []
