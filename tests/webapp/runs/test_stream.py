"""The shared reader: many clients, one read; nothing lost over faults of Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from tests.flow.site import Site
from webapp.runs.keys import stream_key
from webapp.runs.stream import BEGINNING, QUEUE_EVENTS, Cursor, StreamReader, Subscription, point

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def reader(site: Site) -> AsyncIterator[StreamReader]:
    made = StreamReader()
    yield made
    for subscription in [each for followers in made._followers.values() for each in followers]:
        made.leave(subscription)
    await made._redis.aclose()


def add(site: Site, run_id: UUID, first: int, last: int, attempt: int = 1) -> None:
    pipeline = site.redis().pipeline(transaction=False)
    for seq in range(first, last + 1):
        body = {"v": 1, "attempt": attempt, "seq": seq, "t": 1.5, "kind": "step", "data": {"step": seq}}
        pipeline.xadd(stream_key(run_id), {"e": json.dumps(body)}, id=f"{attempt}-{seq}")
    pipeline.execute()


async def arrive(subscription: Subscription, last: str, seconds: float = 10) -> list[str]:
    """The cursors of all that arrives until `last`."""
    found: list[str] = []
    async with asyncio.timeout(seconds):
        while not found or found[-1] != last:
            found += [str(item.cursor) for item in subscription.take()]
            await asyncio.sleep(0.02)
    return found


def test_a_cursor_is_read_or_refused() -> None:
    assert Cursor.parse("12-3") == Cursor(12, 3)
    assert str(Cursor(12, 3)) == "12-3"
    assert Cursor(1, 99) < Cursor(2, 1) < Cursor(2, 10)
    assert Cursor(2, 1).precedes(Cursor(2, 2))
    assert not Cursor(1, 5).precedes(Cursor(2, 1))
    for wrong in ("", "1", "-1", "1-", "1-2 ", "1-2\n", "1" * 16 + "-1", "$", "٣-١", "+1-2"):
        with pytest.raises(ValueError, match="not a cursor"):
            Cursor.parse(wrong)


def test_a_full_queue_marks_the_client_and_keeps_what_it_has() -> None:
    subscription = Subscription(uuid4())
    subscription.put(point(Cursor(1, seq), 0.0, "step", {}) for seq in range(1, QUEUE_EVENTS + 1))
    assert not subscription.overflowed

    subscription.put([point(Cursor(1, QUEUE_EVENTS + 1), 0.0, "step", {})])

    assert subscription.overflowed
    assert len(subscription.take()) == QUEUE_EVENTS


async def test_everybody_gets_what_comes_after_they_follow(site: Site, reader: StreamReader) -> None:
    runs = [uuid4() for _ in range(3)]
    for run_id in runs:
        add(site, run_id, 1, 10)
    clients = [(run_id, await reader.follow(run_id)) for run_id in runs for _ in range(50)]

    for run_id in runs:
        add(site, run_id, 11, 40)
    for _run_id, client in clients:
        assert await arrive(client, "1-40") == [f"1-{seq}" for seq in range(11, 41)]

    assert [str(item.cursor) for item in await reader.backlog(runs[0], BEGINNING)] == [f"1-{seq}" for seq in range(1, 41)]
    assert [str(item.cursor) for item in await reader.backlog(runs[0], Cursor(1, 38))] == ["1-39", "1-40"]
    text = (await reader.backlog(runs[0], Cursor(1, 39)))[0].text
    assert json.loads(text) == {"attempt": 1, "seq": 40, "t": 1.5, "kind": "step", "data": {"step": 40}}


async def test_a_new_run_is_read_at_once_though_the_reader_waits(site: Site, reader: StreamReader) -> None:
    await reader.follow(uuid4())
    await asyncio.sleep(0.3)
    run_id = uuid4()
    began = time.monotonic()
    client = await reader.follow(run_id)
    add(site, run_id, 1, 1)

    await arrive(client, "1-1")

    assert time.monotonic() - began < 2


async def test_a_killed_redis_is_read_on_after_it_is_back(site: Site, reader: StreamReader) -> None:
    run_id = uuid4()
    client = await reader.follow(run_id)
    add(site, run_id, 1, 5)
    assert await arrive(client, "1-5") == [f"1-{seq}" for seq in range(1, 6)]
    await asyncio.to_thread(site.kill, "redis")
    assert await reader.backlog(run_id, BEGINNING) == []
    await asyncio.to_thread(site.start_redis)
    add(site, run_id, 6, 9)

    assert await arrive(client, "1-9") == [f"1-{seq}" for seq in range(6, 10)]


async def test_an_idle_reader_outlives_its_block(site: Site, reader: StreamReader) -> None:
    run_id = uuid4()
    client = await reader.follow(run_id)
    await asyncio.sleep(6)
    add(site, run_id, 1, 1)

    assert await arrive(client, "1-1") == ["1-1"]


async def test_what_is_no_event_is_passed_over(site: Site, reader: StreamReader) -> None:
    run_id = uuid4()
    client = await reader.follow(run_id)
    site.redis().xadd(stream_key(run_id), {"e": "no json"}, id="1-1")
    site.redis().xadd(stream_key(run_id), {"x": "{}"}, id="1-2")
    add(site, run_id, 3, 3)

    assert await arrive(client, "1-3") == ["1-3"]


async def test_the_reader_rests_when_nobody_follows(site: Site, reader: StreamReader) -> None:
    first, second = await reader.follow(uuid4()), await reader.follow(uuid4())
    reader.leave(first)
    assert reader._task is not None
    reader.leave(second)

    assert reader._task is None
    assert reader._last == {}
