"""Who is signed in by which session: what a socket may be opened with."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.http import HttpRequest
from django.utils import timezone

from tests.webapp.runs.live import sign_in
from webapp.accounts.models import User
from webapp.accounts.sockets import people

pytestmark = pytest.mark.django_db


def test_sessions_open_what_they_open_for_pages() -> None:
    users = [User.objects.create_user(f"person-{number}", password="secret") for number in range(5)]
    keys = [sign_in(user) for user in users]
    users[1].set_password("another")
    users[1].save()
    User.objects.filter(pk=users[2].pk).update(is_active=False)
    Session.objects.filter(session_key=keys[3]).update(expire_date=timezone.now() - timedelta(seconds=1))
    visitor = SessionStore()
    visitor["language"] = "de"
    visitor.save()
    foreign = SessionStore(keys[4])
    foreign["_auth_user_backend"] = "some.other.Backend"
    foreign.save()

    found = people([*keys, str(visitor.session_key), "unknown"])

    assert found == {keys[0]: users[0]}
    for key in (*keys, str(visitor.session_key), "unknown"):
        request = HttpRequest()
        request.session = SessionStore(key)
        assert found.get(key, AnonymousUser()) == get_user(request)
