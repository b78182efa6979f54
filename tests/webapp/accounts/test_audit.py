"""The audit log: what stands in it, that it only grows, who reads it, and how it is searched and taken away."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from tests.webapp.cast import Cast
from tests.webapp.test_every_url import make_things
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import AuditEvent, Membership, Role
from webapp.accounts.services.audit import record
from webapp.accounts.services.invite import invite
from webapp.accounts.services.join import join
from webapp.accounts.services.members import change_role, remove_member
from webapp.runs.models import Run
from webapp.runs.priorities import Priority
from webapp.runs.services.delete import delete

COPIED = ("team", "created_by", "dataset_version", "base_model", "method", "spec", "state", "attempt", "lease_expires_at", "queued_at")


def actions(cast: Cast) -> list[tuple[str, str, str]]:
    rows = AuditEvent.objects.filter(team=cast.team).order_by("at")
    return [(row.action, row.actor_name, row.object_name) for row in rows]


def test_what_becomes_of_members_stands_in_it(cast: Cast) -> None:
    token = invite(team=cast.team, inviter=cast.max, role=Role.MEMBER, email="c@example.org")
    joined = join(token=token, user=cast.charlie)
    change_role(team=cast.team, actor=cast.alice, membership_id=joined.pk, role=Role.VIEWER)
    remove_member(team=cast.team, actor=cast.alice, membership_id=joined.pk)
    remove_member(team=cast.team, actor=cast.bob, membership_id=cast.team.memberships.get(user=cast.bob).pk)
    assert actions(cast) == [
        ("invitation.sent", "max", "c@example.org"),
        ("member.joined", "charlie", "charlie"),
        ("member.role", "alice", "charlie"),
        ("member.removed", "alice", "charlie"),
        ("member.left", "bob", "bob"),
    ]
    assert AuditEvent.objects.get(action="member.role").detail == {"from": "member", "to": "viewer"}
    assert token not in str(list(AuditEvent.objects.values_list("detail", "object_name")))


def test_runs_and_downloads_stand_in_it(cast: Cast) -> None:
    things = make_things(cast)
    client = cast.client(cast.vera, REMOTE_ADDR="10.2.3.4")
    url = things.url("artifacts:download")
    client.head(url)
    client.get(url, headers={"Range": "bytes=5-"})
    assert actions(cast) == []
    client.get(url)
    delete(things.run, actor="max")
    assert actions(cast) == [("artifact.downloaded", "vera", "first.zip"), ("run.deleted", "max", "first")]
    assert AuditEvent.objects.get(action="artifact.downloaded").address == "10.2.3.4"


def test_what_is_done_to_ticked_runs_stands_in_it_a_line_for_each(cast: Cast) -> None:
    things = make_things(cast)
    Run.objects.create(**{name: getattr(things.run, name) for name in COPIED}, name="second")
    client = cast.client(cast.bob)
    ticked = [str(pk) for pk in Run.objects.values_list("pk", flat=True)]
    url = reverse("runs:bulk", args=["night"])
    for do, tag in (("tag", "prod, best"), ("untag", "best"), ("untag", "best"), ("archive", ""), ("archive", ""), ("unarchive", "")):
        client.post(url, {"do": do, "tag": tag, "run": ticked})
    Run.objects.update(state="queued")
    client.post(url, {"do": "stop", "run": ticked})
    expected = ["run.tagged", "run.untagged", "run.archived", "run.unarchived", "run.cancelled"]
    assert sorted(actions(cast)) == sorted((action, "bob", name) for action in expected for name in ("first", "second"))
    assert {str(row.detail) for row in AuditEvent.objects.filter(action="run.tagged")} == {"{'tags': ['best', 'prod']}"}
    assert set(AuditEvent.objects.filter(action="run.archived").values_list("object_id", flat=True)) == set(ticked)


def test_workers_and_the_order_of_the_queue_stand_in_it(cast: Cast) -> None:
    things = make_things(cast)
    Run.objects.filter(pk=things.run.pk).update(state="queued")
    Membership.objects.create(team=cast.team, user=cast.ada, role=Role.VIEWER)
    ada, bob = cast.client(cast.ada), cast.client(cast.bob)
    for draining in ("1", "1", "0"):
        ada.post(things.url("runs:drain"), {"draining": draining})
    bob.post(things.url("runs:priority"), {"priority": str(Priority.LOW.value)})
    bob.post(things.url("runs:move"), {"direction": "top"})
    things.run.refresh_from_db()
    assert things.run.priority == Priority.LOW
    assert actions(cast) == [
        ("worker.drained", "ada", "train0@host"), ("worker.resumed", "ada", "train0@host"), ("run.priority", "bob", "first"),
        ("run.moved", "bob", "first"),
    ]  # fmt: skip
    assert AuditEvent.objects.get(action="run.priority").detail == {"from": "normal", "to": "low"}


def test_what_is_refused_leaves_nothing(cast: Cast) -> None:
    client = cast.client(cast.vera)
    client.post(reverse("accounts:invite", args=["night"]), {"role": "viewer"})
    client.post(reverse("accounts:set-role", args=["night", cast.team.memberships.get(user=cast.bob).pk]), {"role": "viewer"})
    assert actions(cast) == []


def test_an_event_is_never_changed(cast: Cast) -> None:
    event = record(Action.RUN_CREATED, team=cast.team, actor=cast.bob, name="first")
    event.actor_name = "alice"
    for act in (event.save, event.delete):
        with pytest.raises(RuntimeError):
            act()
    assert actions(cast) == [("run.created", "bob", "first")]


def test_an_event_outlives_its_person(cast: Cast) -> None:
    record(Action.RUN_CREATED, team=cast.team, actor=cast.bob, name="first")
    cast.bob.delete()
    assert actions(cast) == [("run.created", "bob", "first")]


def test_it_is_read_by_whoever_manages_the_team_and_of_that_team_alone(cast: Cast) -> None:
    record(Action.RUN_CREATED, team=cast.team, actor=cast.bob, name="ours")
    record(Action.RUN_CREATED, team=cast.other_team, actor=cast.charlie, name="theirs")
    url = reverse("accounts:audit", args=["night"])
    assert [cast.client(person).get(url).status_code for person in (cast.max, cast.bob, cast.vera, cast.charlie)] == [200, 403, 403, 404]
    for each in (url, reverse("accounts:audit-csv", args=["night"])):
        text = cast.client(cast.max).get(each).content.decode()
        assert ("ours" in text, "theirs" in text) == (True, False)


def shown(cast: Cast, **asked: str) -> list[str]:
    answer = cast.client(cast.max).get(reverse("accounts:audit-csv", args=["night"]), asked)
    return [row["object_name"] for row in csv.DictReader(io.StringIO(answer.content.decode()))]


def test_it_is_searched_by_person_action_and_day(cast: Cast) -> None:
    now = timezone.now()
    for name, person, action, days in (
        ("a", cast.bob, Action.RUN_CREATED, 0), ("b", cast.bob, Action.RUN_DELETED, 1), ("c", cast.max, Action.RUN_CREATED, 2),
    ):  # fmt: skip
        event = record(action, team=cast.team, actor=person, name=name)
        AuditEvent.objects.filter(pk=event.pk).update(at=now - timedelta(days=days))
    day = f"{now - timedelta(days=1):%Y-%m-%d}"
    assert shown(cast) == ["a", "b", "c"]
    assert shown(cast, person="bob") == ["a", "b"]
    assert shown(cast, action="run.created") == ["a", "c"]
    assert shown(cast, start=day) == ["a", "b"]
    assert shown(cast, end=day) == ["b", "c"]
    assert shown(cast, start=day, end=day) == ["b"]
    page = cast.client(cast.max).get(reverse("accounts:audit", args=["night"]), {"start": "yesterday"})
    assert page.status_code == 422
    assert "Enter a valid date" in page.content.decode()


def test_a_name_is_no_formula_in_a_spreadsheet(cast: Cast) -> None:
    record(Action.RUN_CREATED, team=cast.team, actor=cast.bob, name="=HYPERLINK(1)")
    assert shown(cast) == ["'=HYPERLINK(1)"]


def test_the_page_asks_the_database_a_fixed_number_of_times(cast: Cast, django_assert_max_num_queries: Any) -> None:
    client = cast.client(cast.alice)
    url = reverse("accounts:audit", args=["night"])
    client.get(url)
    counts = []
    for number in (1, 70):
        for each in range(number):
            record(Action.RUN_CREATED, team=cast.team, actor=cast.bob, name=str(each))
        with django_assert_max_num_queries(30) as asked:
            client.get(url)
        counts.append(len(asked.captured_queries))
    assert counts[0] == counts[1]
    assert "Page 2 of 2" in client.get(url, {"page": 2}).content.decode()
