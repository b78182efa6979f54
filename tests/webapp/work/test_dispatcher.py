"""The dispatcher against a real Redis; with processes it is tested in tests/flow."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now
from kombu import pools

from tests.flow.site import Site
from webapp.celery import app
from webapp.work.dispatcher import Dispatcher
from webapp.work.models import OutboxMessage
from webapp.work.outbox import ring

RECONCILED: list[str] = []


def count() -> None:
    RECONCILED.append("count")


def broken() -> None:
    raise OperationalError("the database is away")


@pytest.fixture
def dispatcher(site: Site, settings: Any) -> Any:
    settings.GRAFT_RECONCILERS = ["tests.webapp.work.test_dispatcher:broken", "tests.webapp.work.test_dispatcher:count"]
    RECONCILED.clear()
    before = app.conf.broker_url
    use_broker(f"redis+socket://{site.socket}?virtual_host=0")
    yield Dispatcher()
    use_broker(before)


def use_broker(url: str) -> None:
    """Points this process's Celery app at another broker; its pools know the old one."""
    app.conf.broker_url = url
    pools.reset()
    app._pool = None
    app.amqp._producer_pool = None


def waiting(site: Site, queue: str = "train") -> list[Any]:
    """The arguments of the messages in a queue, oldest first."""
    bodies: Any = site.redis().lrange(f"graft:{queue}", 0, -1)
    headers = [json.loads(body)["headers"] for body in reversed(bodies)]
    return [(header["task"], header["argsrepr"]) for header in headers]


def test_publishes_in_order_what_was_committed(site: Site, dispatcher: Dispatcher) -> None:
    first, second, never = (uuid.uuid4() for _ in range(3))
    ring("runs.train", first, "train")
    with transaction.atomic():
        ring("runs.train", never, "train")
        transaction.set_rollback(True)
    ring("runs.train", second, "train")
    dispatcher.tick()
    dispatcher.tick()
    assert waiting(site) == [("runs.train", f"['{subject}']") for subject in (first, second)]
    assert not OutboxMessage.objects.filter(published_at=None).exists()


def test_outage_of_redis_is_said_once_and_loses_nothing(site: Site, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    site.kill("redis")
    ring("runs.train", uuid.uuid4(), "train")
    for _ in range(3):
        dispatcher.tick()
    assert OutboxMessage.objects.filter(published_at=None).count() == 1
    assert caplog.text.count("outbox: waiting") == 1
    site.start_redis()
    dispatcher.tick()
    assert len(waiting(site)) == 1
    assert "outbox: going on" in caplog.text


def test_one_broken_part_does_not_stop_the_others(dispatcher: Dispatcher) -> None:
    dispatcher.tick()
    dispatcher.tick()
    assert RECONCILED == ["count", "count"]


def test_outage_of_the_database_is_survived(dispatcher: Dispatcher) -> None:
    def refuse(*_: Any) -> None:
        raise OperationalError("the database is away")

    ring("runs.train", uuid.uuid4(), "train")
    with connection.execute_wrapper(refuse):
        dispatcher.tick()
    dispatcher.tick()
    assert not OutboxMessage.objects.filter(published_at=None).exists()


def test_old_messages_are_forgotten(dispatcher: Dispatcher, tmp_path: Path) -> None:
    for _ in range(3):
        ring("runs.train", uuid.uuid4(), "train")
    old, young = OutboxMessage.objects.all()[:2]
    OutboxMessage.objects.filter(pk=old.pk).update(published_at=Now() - timedelta(days=2))
    OutboxMessage.objects.filter(pk=young.pk).update(published_at=Now())
    dispatcher.tick()
    assert not OutboxMessage.objects.filter(pk=old.pk).exists()
    assert OutboxMessage.objects.count() == 2
