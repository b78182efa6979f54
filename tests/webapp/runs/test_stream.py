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
from webapp.runs.stream import BEGINNING, FRAME_EVENTS, RECENT_EVENTS, Batch, Cursor, Point, Recent, StreamReader, Subscription, batches

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def reader(site: Site) -> AsyncIterator[StreamReader]:
    made = StreamReader()
    yield made
    for subscription in [each for recent in made._runs.values() for each in recent.followers]:
        made.leave(subscription)
    await made._redis.aclose()


def add(site: Site, run_id: UUID, first: int, last: int, attempt: int = 1) -> None:
    pipeline = site.redis().pipeline(transaction=False)
    for seq in range(first, last + 1):
        body = {"v": 1, "attempt": attempt, "seq": seq, "t": 1.5, "kind": "step", "data": {"step": seq}}
        pipeline.xadd(stream_key(run_id), {"e": json.dumps(body)}, id=f"{attempt}-{seq}")
    pipeline.execute()


def numbers(found: list[Batch]) -> list[str]:
    return [f"{batch.first.attempt}-{batch.first.seq + place}" for batch in found for place in range(len(batch.texts))]


async def arrive(subscription: Subscription, last: str, after: str = "0-0", seconds: float = 10) -> list[str]:
    """The places of all that arrives after a cursor until `last`, as a socket takes it."""
    found, cursor = list[str](), Cursor.parse(after)
    async with asyncio.timeout(seconds):
        while str(cursor) != last:
            for batch in subscription.recent.after(cursor):
                found += numbers([batch])
                cursor = batch.last
            await subscription.arrival(1)
    return found


def points(attempt: int, first: int, last: int, text: str = "{}") -> list[Point]:
    return [Point(Cursor(attempt, seq), text) for seq in range(first, last + 1)]


def test_a_cursor_is_read_or_refused() -> None:
    assert Cursor.parse("12-3") == Cursor(12, 3)
    assert str(Cursor(12, 3)) == "12-3"
    assert Cursor(1, 99) < Cursor(2, 1) < Cursor(2, 10)
    assert Cursor(2, 1).precedes(Cursor(2, 2))
    assert not Cursor(1, 5).precedes(Cursor(2, 1))
    assert BEGINNING.precedes(Cursor(1, 1))
    assert not BEGINNING.precedes(Cursor(2, 1))
    for wrong in ("", "1", "-1", "1-", "1-2 ", "1-2\n", "1" * 16 + "-1", "$", "٣-١", "+1-2"):
        with pytest.raises(ValueError, match="not a cursor"):
            Cursor.parse(wrong)


def test_events_are_cut_at_holes_and_where_a_frame_is_full() -> None:
    found = batches([*points(1, 1, FRAME_EVENTS + 3), *points(1, 600, 601), *points(2, 1, 2)])
    assert [(str(batch.first), str(batch.last)) for batch in found] == [
        ("1-1", f"1-{FRAME_EVENTS}"), (f"1-{FRAME_EVENTS + 1}", f"1-{FRAME_EVENTS + 3}"), ("1-600", "1-601"), ("2-1", "2-2"),
    ]  # fmt: skip
    assert batches([]) == []
    assert json.loads(found[2].frame) == {"type": "events", "cursor": "1-601", "events": [{}, {}]}


def test_what_follows_a_cursor_without_a_hole_is_sent_in_few_frames() -> None:
    recent = Recent()
    for first in (11, 21, 31):
        recent.add(points(1, first, first + 9))
    recent.add(points(1, 51, 60))

    assert recent.newest == Cursor(1, 60)
    assert [(str(batch.first), str(batch.last)) for batch in recent.after(Cursor(1, 14))] == [("1-15", "1-40")]
    assert [(str(batch.first), str(batch.last)) for batch in recent.after(Cursor(1, 10))] == [("1-11", "1-40")]
    # Before what is held, at the hole, and at the end there is nothing to send from here.
    assert [recent.after(cursor) for cursor in (BEGINNING, Cursor(1, 9), Cursor(1, 40), Cursor(1, 60), Cursor(2, 3))] == [[]] * 5
    assert numbers(recent.after(Cursor(1, 50))) == [f"1-{seq}" for seq in range(51, 61)]


def test_the_frame_of_a_batch_is_made_once_for_all_sockets() -> None:
    recent = Recent()
    recent.add(points(1, 1, 10))
    recent.add(points(1, 11, 20))
    (one,), (other,) = recent.after(Cursor(1, 10)), recent.after(Cursor(1, 10))
    assert one.frame is other.frame


def test_the_oldest_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.runs.stream.RECENT_CHARACTERS", 1000)
    recent = Recent()
    for first in range(1, 401, 10):
        recent.add(points(1, first, first + 9, text='"some text"'))
    assert recent.after(Cursor(1, 300)) == []
    assert numbers(recent.after(Cursor(1, 380))) == [f"1-{seq}" for seq in range(381, 401)]
    # One that is larger than all that may be held is still held until the next.
    recent.add(points(1, 401, 401, text="x" * 2000))
    assert numbers(recent.after(Cursor(1, 400))) == ["1-401"]


async def test_everybody_gets_what_comes_after_they_follow(site: Site, reader: StreamReader) -> None:
    runs = [uuid4() for _ in range(3)]
    for run_id in runs:
        add(site, run_id, 1, 10)
    clients = await asyncio.gather(*(reader.follow(run_id) for run_id in runs for _ in range(50)))

    for run_id in runs:
        add(site, run_id, 11, 40)
    for client in clients:
        assert await arrive(client, "1-40", after="1-7") == [f"1-{seq}" for seq in range(8, 41)]

    assert [str(item.cursor) for item in await reader.backlog(runs[0], BEGINNING)] == [f"1-{seq}" for seq in range(1, 41)]
    assert [str(item.cursor) for item in await reader.backlog(runs[0], Cursor(1, 38))] == ["1-39", "1-40"]
    text = (await reader.backlog(runs[0], Cursor(1, 39)))[0].text
    assert json.loads(text) == {"attempt": 1, "seq": 40, "t": 1.5, "kind": "step", "data": {"step": 40}}


async def test_the_past_is_as_much_as_is_kept(site: Site, reader: StreamReader) -> None:
    run_id = uuid4()
    add(site, run_id, 1, RECENT_EVENTS + 200)
    client = await reader.follow(run_id)
    assert client.recent.after(Cursor(1, 199)) == []
    assert numbers(client.recent.after(Cursor(1, 200))) == [f"1-{seq}" for seq in range(201, RECENT_EVENTS + 201)]


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

    assert await arrive(client, "1-9", after="1-5") == [f"1-{seq}" for seq in range(6, 10)]


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

    await client.arrival(10)
    while client.recent.newest != Cursor(1, 3):
        await client.arrival(10)
    assert client.recent.after(BEGINNING) == []
    assert numbers(client.recent.after(Cursor(1, 2))) == ["1-3"]


async def test_the_reader_rests_when_nobody_follows(site: Site, reader: StreamReader) -> None:
    first, second = await reader.follow(uuid4()), await reader.follow(uuid4())
    reader.leave(first)
    assert reader._task is not None
    reader.leave(second)

    assert reader._task is None
    assert reader._runs == {}
