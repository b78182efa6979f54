"""The door to runs: Alice owns, Bob is a member, Vera a viewer, Charlie is on another team."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404

from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import Membership, Role, User
from webapp.runs.access import get_run, visible_runs


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
