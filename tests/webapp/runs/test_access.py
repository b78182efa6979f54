"""The door to runs: Alice owns, Bob is a member, Vera a viewer, Charlie is on another team."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404

from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import Membership, Role, User
from webapp.runs.access import get_run, runs_in_sight, visible_runs


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.VIEWER, {"view"}),
        (Role.MEMBER, {"view", "launch", "control"}),
        (Role.MAINTAINER, {"view", "launch", "control", "manage"}),
        (Role.OWNER, {"view", "launch", "control", "manage"}),
    ],
)
def test_what_a_role_may_do(bench: Bench, role: Role, allowed: set[str]) -> None:
    run = bench.launch()
    person = User.objects.create_user("person")
    Membership.objects.create(team=bench.team, user=person, role=role)
    for action in ("view", "launch", "control", "manage"):
        if action in allowed:
            assert get_run(person, run.id, action) == run
        else:
            with pytest.raises(PermissionDenied):
                get_run(person, run.id, action)


def test_a_stranger_learns_nothing(bench: Bench) -> None:
    run = bench.launch()
    charlie = make_bench("charlie").user
    gone = User.objects.create_user("gone", is_active=False)
    Membership.objects.create(team=bench.team, user=gone, role=Role.OWNER)
    administrator = User.objects.create_superuser("administrator")
    for person in (charlie, gone, administrator, AnonymousUser()):
        assert not visible_runs(person).exists()
        for run_id in (run.id, uuid.uuid4()):
            with pytest.raises(Http404):
                get_run(person, run_id, "view")
    assert visible_runs(bench.user).get() == run


def test_many_at_once_see_what_each_of_them_sees(
    bench: Bench, django_assert_num_queries: Callable[[int], AbstractContextManager[None]]
) -> None:
    run, other = bench.launch(), make_bench("charlie")
    theirs = other.launch()
    people = [User.objects.create_user(f"person-{number}") for number in range(5)]
    for person, role in zip(people, Role, strict=False):
        Membership.objects.create(team=bench.team, user=person, role=role)
    gone, token = User.objects.create_user("gone", is_active=False), User.objects.create_user("token")
    for person in (gone, token):
        Membership.objects.create(team=bench.team, user=person, role=Role.OWNER)
        Membership.objects.create(team=other.team, user=person, role=Role.OWNER)
    token.only_team = other.team.pk
    asked = [(person, run_id) for person in (*people, gone, token, other.user) for run_id in (run.pk, theirs.pk, uuid.uuid4())]

    with django_assert_num_queries(2):
        found = runs_in_sight(asked)

    expected = {}
    for person, run_id in asked:
        try:
            expected[person.pk, run_id] = get_run(person, run_id, "view")
        except Http404:
            continue
    assert found == expected
    assert set(found) == {*((person.pk, run.pk) for person in people[:4]), (token.pk, theirs.pk), (other.user.pk, theirs.pk)}


def test_a_team_with_two_factors_is_out_of_sight_without_one(bench: Bench) -> None:
    run = bench.launch()
    assert set(runs_in_sight([(bench.user, run.pk)])) == {(bench.user.pk, run.pk)}
    type(bench.team).objects.filter(pk=bench.team.pk).update(require_two_factor=True)
    assert runs_in_sight([(bench.user, run.pk)]) == {}
