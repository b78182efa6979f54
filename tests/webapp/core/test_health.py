"""The two probes: reachable by anything, true about everything."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.flow.site import Site
from webapp.runs.models import Worker
from webapp.work.models import OutboxMessage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def worker(transactional_db: None) -> None:
    Worker.objects.create(name="train0@site", queue="train", seen_at=timezone.now())


def test_alive_for_anybody_under_any_name(settings: Any, django_assert_num_queries: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    with django_assert_num_queries(0):
        answer = Client(headers={"host": "10.1.2.3"}).get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_where_all_is_there(site: Site) -> None:
    answer = Client().get("/readyz")

    assert answer.json() == {
        "status": "ok",
        "parts": {"database": True, "redis": True, "disk": True, "dispatcher": True, "worker": True},
    }
    assert answer.status_code == 200


@pytest.mark.parametrize("part", ["redis", "disk", "dispatcher", "worker", "database"])
def test_what_is_missing_is_named(site: Site, settings: Any, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    if part == "redis":
        site.kill("redis")
    elif part == "disk":
        settings.GRAFT_VAR = site.var / "gone"
    elif part == "worker":
        Worker.objects.update(seen_at=timezone.now() - timedelta(minutes=2))
    elif part == "dispatcher":
        OutboxMessage.objects.create(task="runs.train", subject=uuid4(), queue="train")
        OutboxMessage.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    else:
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "NAME", "/nowhere/graft.sqlite3")

    answer = Client().get("/readyz")

    assert answer.status_code == 503
    assert [name for name, fine in answer.json()["parts"].items() if not fine] == [part]
