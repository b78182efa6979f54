"""The page of workers and queue: what a team sees of the site's machines, and who may change what."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import Membership, Role, User
from webapp.runs import lease
from webapp.runs.models import Run, Worker
from webapp.runs.order import places
from webapp.runs.priorities import Priority
from webapp.runs.services.claim_next import claim_next

CPU = {"kind": "cpu", "name": "8-core processor", "memory_bytes": 16_000_000_000, "threads": 8, "bfloat16": False, "count": 1}
VITALS = {"memory_used_bytes": 4_000_000_000, "memory_bytes": 16_000_000_000, "busy": 0.42, "celsius": None}


@pytest.fixture
def other(bench: Bench) -> Bench:
    return make_bench("charlie")


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


def person(bench: Bench, name: str, role: Role, **fields: Any) -> Client:
    user = User.objects.create_user(username=name, password="secret", **fields)
    Membership.objects.create(team=bench.team, user=user, role=role)
    client = Client()
    client.force_login(user)
    return client


def worker(name: str = "train0@host", **fields: Any) -> Worker:
    values = {"name": name, "queue": "train", "seen_at": Now(), "device": CPU, "vitals": VITALS, "versions": {"torch": "2.13.0"}}
    return Worker.objects.create(**{**values, **fields})


def url(bench: Bench, name: str = "workers", *args: Any) -> str:
    return reverse(f"runs:{name}", args=[bench.team.slug, *args])


def text_of(client: Client, bench: Bench) -> str:
    answer = client.get(url(bench))
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_machines_with_state_memory_load_and_versions(bench: Bench, alice: Client) -> None:
    run = bench.launch(name="support-11")
    Run.objects.update(last_step=31, total_steps=50, summary={"latest": {"eta_seconds": 90}})
    lease.claim(run.id, "train0@host")
    worker(run=run)
    worker("train1@host", seen_at=lease.after(-3600))
    worker("train2@host", draining=True)
    worker("train3@host", vitals={**VITALS, "celsius": 61.4}, device={**CPU, "kind": "cuda", "name": "H100"})
    text = text_of(alice, bench)
    for words in (
        "support-11",
        "62 %",
        "1 min 30 s left",
        "4.00 GB of 16.0 GB",
        "42 %",
        "torch 2.13.0",
        "61 °C",
        "H100",
    ):
        assert words in text
    assert "No sign of life for 1 h" in text
    assert [text.count(f"<span>{word}</span>") for word in ("Busy", "Idle", "Lost", "Draining")] == [0, 0, 0, 0]
    assert [text.count(f"</svg>{word}</span>") for word in ("Busy", "Idle", "Lost", "Draining")] == [1, 1, 1, 1]
    # Lost and draining ones take nothing.
    assert "2 workers take runs" in text


def test_runs_of_other_teams_have_no_name(bench: Bench, other: Bench, alice: Client) -> None:
    busy, waits = other.launch(name="secret-busy"), other.launch(name="secret-waits")
    lease.claim(busy.id, "train0@host")
    worker(run=busy)
    text = text_of(alice, bench)
    assert "secret" not in text
    assert str(busy.id) not in text
    assert "Busy for another team" in text
    assert "a run of another team" in text
    assert alice.post(url(bench, "priority", waits.id), {"priority": 0}).status_code == 404
    assert alice.post(url(bench, "move", waits.id), {"direction": "top"}).status_code == 404
    waits.refresh_from_db()
    assert (waits.priority, waits.place) == (Priority.NORMAL, 0)


def test_only_an_administrator_drains(bench: Bench, alice: Client) -> None:
    row = worker()
    assert "Drain" not in text_of(alice, bench)
    assert alice.post(url(bench, "drain", row.pk), {"draining": "1"}).status_code == 403
    row.refresh_from_db()
    assert not row.draining
    ada = person(bench, "ada", Role.VIEWER, is_superuser=True)
    assert "Drain" in text_of(ada, bench)
    bench.launch()
    assert ada.post(url(bench, "drain", row.pk), {"draining": "1"}).url == url(bench)  # type: ignore[attr-defined]
    assert claim_next("train", row.name) is None
    ada.post(url(bench, "drain", row.pk), {"draining": "0"})
    assert claim_next("train", row.name) is not None


def test_who_may_put_runs_in_order(bench: Bench, alice: Client) -> None:
    first, second = bench.launch(name="first"), bench.launch(name="second")
    viewer, ada = person(bench, "vera", Role.VIEWER), person(bench, "ada", Role.VIEWER, is_superuser=True)
    assert viewer.post(url(bench, "move", second.id), {"direction": "top"}).status_code == 403
    assert viewer.post(url(bench, "priority", second.id), {"priority": "0"}).status_code == 403
    assert list(places("train")) == [first.id, second.id]
    assert alice.post(url(bench, "move", second.id), {"direction": "top"}).status_code == 302
    assert list(places("train")) == [second.id, first.id]
    # A member may lower a run, and raise it back, but not put it before other teams.
    assert alice.post(url(bench, "priority", second.id), {"priority": "0"}).status_code == 302
    assert alice.post(url(bench, "priority", second.id), {"priority": "2"}).status_code == 403
    assert list(places("train")) == [first.id, second.id]
    assert ada.post(url(bench, "priority", second.id), {"priority": "2"}).status_code == 302
    assert list(places("train")) == [second.id, first.id]
    for data, name in (({"priority": "7"}, "priority"), ({"priority": ""}, "priority"), ({"direction": "left"}, "move")):
        assert "Nothing was changed" in alice.post(url(bench, name, first.id), data, follow=True).content.decode()
    assert list(places("train")) == [second.id, first.id]


def test_a_run_that_waits_no_more_says_so(bench: Bench, alice: Client) -> None:
    run = bench.launch()
    claim_next("train", "train0")
    answer = alice.post(url(bench, "move", run.id), {"direction": "up"}, follow=True)
    assert "the run is starting" in answer.content.decode()


def test_htmx_gets_the_part_that_lives(bench: Bench, alice: Client) -> None:
    run = bench.launch()
    headers = {"HX-Request": "true"}
    for answer in (alice.get(url(bench), headers=headers), alice.post(url(bench, "move", run.id), {"direction": "up"}, headers=headers)):
        assert answer.content.decode().lstrip().startswith('<div id="workers"')


def test_the_page_makes_as_many_queries_for_many_runs_as_for_few(bench: Bench, other: Bench, alice: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            text_of(alice, bench)
        return len(captured)

    worker(run=bench.launch(name="a"))
    bench.launch(name="b")
    queries()  # the first visit of a session writes the team into it
    few = queries()
    for number in range(12):
        bench.launch(name=f"run {number}")
        other.launch(name=f"theirs {number}")
        worker(f"more{number}")
    assert queries() == few
