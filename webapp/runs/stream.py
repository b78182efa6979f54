"""The wire: one reader of Redis Streams for the whole web process, and the place of an event in a run's history.

A stream `graft:run:<id>` holds what the supervisor shipped, ids `<attempt>-<seq>`. It is trimmed, can be flushed, and may lack what a
killed Redis had not yet written; who reads it must therefore look for holes (`consumers`) and fill them from the archive (`Record`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

from redis import RedisError

from webapp.core.redis import BLOCK_SECONDS, async_client
from webapp.runs.keys import stream_key

log = logging.getLogger(__name__)

QUEUE_EVENTS = 2000
_READ_EVENTS = 500
_RETRY_SECONDS = 0.5
_CURSOR = re.compile(r"\d{1,15}-\d{1,15}", re.ASCII)


class Cursor(NamedTuple):
    """The place of an event: ordered by attempt, then by its number in the attempt (from 1). `0-0` stands before all."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Reads `<attempt>-<seq>`. Raises `ValueError` for all else: a cursor that is not understood must not replay everything."""
        if not _CURSOR.fullmatch(text):
            raise ValueError(f"not a cursor: {text[:40]!r}")
        attempt, seq = text.split("-")
        return cls(int(attempt), int(seq))

    def precedes(self, other: Cursor) -> bool:
        """Whether nothing can lie between this event and `other`; across attempts that cannot be known from the numbers."""
        return other.attempt == self.attempt and other.seq == self.seq + 1


BEGINNING = Cursor(0, 0)


class Point(NamedTuple):
    """An event on its way to browsers: its place, and its JSON, made once for all of them."""

    cursor: Cursor
    text: str


def point(cursor: Cursor, t: float, kind: str, data: dict[str, Any]) -> Point:
    """The event as browsers get it: `{"attempt", "seq", "t", "kind", "data"}`."""
    body = {"attempt": cursor.attempt, "seq": cursor.seq, "t": t, "kind": kind, "data": data}
    return Point(cursor, json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


@dataclass(eq=False)
class Subscription:
    """One client's place at the reader: a bounded queue, and whether it has overflowed (the client must then come back)."""

    run_id: UUID
    queue: asyncio.Queue[Point] = field(default_factory=lambda: asyncio.Queue(QUEUE_EVENTS))
    overflowed: bool = False

    def put(self, arrived: Iterable[Point]) -> None:
        """Queues events; the first that finds no room marks the subscription instead."""
        try:
            for item in arrived:
                self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self.overflowed = True

    def take(self) -> list[Point]:
        """All that has arrived since the last call."""
        return [self.queue.get_nowait() for _ in range(self.queue.qsize())]


class StreamReader:
    """Reads the streams of all runs that somebody follows by one blocking XREAD, and fans out what comes.

    It lives in one event loop, runs only while somebody follows, and outlives every fault of Redis: after an outage it goes on from
    the last id it saw.
    """

    def __init__(self) -> None:
        self._redis = async_client()
        self._followers: dict[UUID, set[Subscription]] = {}
        self._last: dict[UUID, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._read: asyncio.Task[Any] | None = None
        self._silent = False

    async def follow(self, run_id: UUID) -> Subscription:
        """A subscription to what is shipped from now on. What came before is read by `backlog`, after this call, so that nothing falls
        between the two.
        """
        subscription = Subscription(run_id)
        followers = self._followers.setdefault(run_id, set())
        followers.add(subscription)
        if run_id not in self._last:
            try:
                newest = await self._newest(run_id)
            except asyncio.CancelledError:
                self.leave(subscription)
                raise
            self._last.setdefault(run_id, newest)
            self._restart()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Ends a subscription; the last one of a run ends the reading of its stream."""
        followers = self._followers.get(subscription.run_id, set())
        followers.discard(subscription)
        if not followers:
            self._followers.pop(subscription.run_id, None)
            self._last.pop(subscription.run_id, None)
        if not self._followers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def backlog(self, run_id: UUID, after: Cursor) -> list[Point]:
        """The next events of the stream after a cursor, at most 500; none where the end is reached or Redis is away."""
        try:
            entries: Any = await self._redis.xrange(stream_key(run_id), min=f"({after}", count=_READ_EVENTS)
        except (RedisError, OSError) as failure:
            self._say(failure)
            return []
        return _points(entries)

    async def _newest(self, run_id: UUID) -> str:
        try:
            entries: Any = await self._redis.xrevrange(stream_key(run_id), count=1)
        except (RedisError, OSError) as failure:
            # What comes next, then: the hole before it is seen by its number, and filled from the archive.
            self._say(failure)
            return "$"
        return str(entries[0][0].decode()) if entries else str(BEGINNING)

    def _restart(self) -> None:
        """Has the reader look at a changed list of runs: the read in flight is given up, which costs a reconnect and loses nothing."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="stream-reader")
        elif self._read is not None:
            self._read.cancel()

    async def _run(self) -> None:
        while self._followers:
            try:
                await self._read_once()
                self._silent = False
            except (RedisError, OSError) as failure:
                self._say(failure)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read_once(self) -> None:
        wanted = {stream_key(run_id): last for run_id, last in self._last.items()}
        if not wanted:
            await asyncio.sleep(_RETRY_SECONDS)
            return
        self._read = asyncio.create_task(self._xread(wanted))
        try:
            await asyncio.wait([self._read])
        except asyncio.CancelledError:
            self._read.cancel()
            raise
        if self._read.cancelled():
            return
        for key, entries in self._read.result() or ():
            self._deliver(UUID(key.decode().rpartition(":")[2]), entries)

    async def _xread(self, wanted: dict[str, str]) -> Any:
        # The call stands in here: a read that is given up before its first step then leaves no command behind that nobody awaits.
        return await self._redis.xread(wanted, count=_READ_EVENTS, block=int(BLOCK_SECONDS * 1000))  # type: ignore[arg-type]

    def _deliver(self, run_id: UUID, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        if run_id not in self._last or not entries:
            return
        self._last[run_id] = entries[-1][0].decode()
        arrived = _points(entries)
        for subscription in self._followers.get(run_id, ()):
            subscription.put(arrived)

    def _say(self, failure: Exception) -> None:
        if not self._silent:
            log.warning("Redis is away, live points come from the archive: %s", failure)
        self._silent = True


def _points(entries: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Point]:
    """Stream entries as points. An entry that is no event is skipped: the archive has what the engine wrote."""
    found = []
    for name, fields in entries:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            event = json.loads(fields[b"e"])
            found.append(point(Cursor.parse(name.decode()), event["t"], event["kind"], event["data"]))
    return found


_READERS: WeakKeyDictionary[asyncio.AbstractEventLoop, StreamReader] = WeakKeyDictionary()


def shared_reader() -> StreamReader:
    """The one reader of this event loop, which in a web process is the only loop."""
    loop = asyncio.get_running_loop()
    if loop not in _READERS:
        _READERS[loop] = StreamReader()
    return _READERS[loop]
