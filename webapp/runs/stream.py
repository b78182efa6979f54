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
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

import msgspec
from redis import RedisError

from webapp.core.redis import BLOCK_SECONDS, async_client
from webapp.runs.keys import stream_key

log = logging.getLogger(__name__)

# One frame holds no more events.
FRAME_EVENTS = 500
# What is kept in memory of a run that somebody follows: as much of its newest as comes while a restarted server's pages find back.
RECENT_EVENTS = 1000
RECENT_CHARACTERS = 1_000_000
# Streams are read so often at most: what comes in between is one frame for each run, whoever looks on.
READ_SECONDS = 0.1
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
        return other.seq == self.seq + 1 and (other.attempt == self.attempt or (self == BEGINNING and other.attempt == 1))


BEGINNING = Cursor(0, 0)


class Point(NamedTuple):
    """An event on its way to browsers: its place, and its JSON, made once for all of them."""

    cursor: Cursor
    text: str


def point(cursor: Cursor, t: float, kind: str, data: str) -> Point:
    """The event as browsers get it: `{"attempt", "seq", "t", "kind", "data"}`. `data` is JSON already, and passed on as it stands."""
    head = f'{{"attempt":{cursor.attempt},"seq":{cursor.seq},"t":{t!r},"kind":{json.dumps(kind)}'
    return Point(cursor, f'{head},"data":{data}}}')


@dataclass(frozen=True)
class Batch:
    """Events of one attempt that follow each other without a hole, `FRAME_EVENTS` at most; their frame is made once for all sockets."""

    first: Cursor
    texts: tuple[str, ...]

    @property
    def last(self) -> Cursor:
        """The place of its last event."""
        return Cursor(self.first.attempt, self.first.seq + len(self.texts) - 1)

    @cached_property
    def frame(self) -> str:
        """The message that sockets send: `{"type": "events", "cursor", "events"}`."""
        return f'{{"type":"events","cursor":"{self.last}","events":[{",".join(self.texts)}]}}'

    def after(self, cursor: Cursor) -> Batch:
        """What of it comes after a cursor that lies within it or before it."""
        seen = cursor.seq - self.first.seq + 1 if cursor >= self.first else 0
        return Batch(Cursor(self.first.attempt, self.first.seq + seen), self.texts[seen:]) if seen else self


def batches(points: Sequence[Point]) -> list[Batch]:
    """Cuts events, in order, where something may be missing between two of them, and where a frame is full."""
    found, start = [], 0
    for end in range(1, len(points) + 1):
        if end == len(points) or end - start == FRAME_EVENTS or not points[end - 1].cursor.precedes(points[end].cursor):
            found.append(Batch(points[start].cursor, tuple(item.text for item in points[start:end])))
            start = end
    return found


def joined(found: Sequence[Batch]) -> list[Batch]:
    """The same events in as few batches as may be: who has fallen behind is sent few large frames."""
    whole: list[Batch] = []
    for batch in found:
        before = whole[-1] if whole else None
        if before and before.last.precedes(batch.first) and len(before.texts) + len(batch.texts) <= FRAME_EVENTS:
            whole[-1] = Batch(before.first, before.texts + batch.texts)
        else:
            whole.append(batch)
    return whole


class Recent:
    """The newest of a run, as all of its sockets read it, and who waits for more."""

    def __init__(self) -> None:
        self.newest = BEGINNING
        self.last = "$"
        self.followers: set[Subscription] = set()
        self.loaded: asyncio.Task[None] | None = None
        self._held: deque[Batch] = deque()
        self._characters = 0

    def add(self, points: Sequence[Point]) -> None:
        """Takes in what has come, in order, and wakes who waits; lets go of the oldest where there is too much."""
        for batch in batches(points):
            self._held.append(batch)
            self._characters += len(batch.frame)
        if points:
            self.newest = points[-1].cursor
        while self._characters > RECENT_CHARACTERS and len(self._held) > 1:
            self._characters -= len(self._held.popleft().frame)
        for follower in self.followers:
            follower.wake()

    def after(self, cursor: Cursor) -> list[Batch]:
        """What follows the cursor without a hole; nothing where the next event is not here."""
        found: list[Batch] = []
        for batch in reversed(self._held):
            if batch.last <= cursor:
                break
            found.append(batch.after(cursor))
        ready: list[Batch] = []
        for batch in reversed(found):
            if not cursor.precedes(batch.first):
                break
            ready.append(batch)
            cursor = batch.last
        return ready if len(ready) < 2 else joined(ready)


class Subscription:
    """One client's place at the reader. It holds no events: what it has not sent yet is found by its cursor (`recent`)."""

    def __init__(self, run_id: UUID, recent: Recent) -> None:
        self.run_id, self.recent = run_id, recent
        self._fresh = True
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Something has come."""
        self._fresh = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def arrival(self, seconds: float) -> None:
        """Returns when something has come since the last call, or after so many seconds."""
        if not self._fresh:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            due = loop.call_later(seconds, self.wake)
            try:
                await self._waiting
            finally:
                due.cancel()
                self._waiting = None
        self._fresh = False


class StreamReader:
    """Reads the streams of all runs that somebody follows by one blocking XREAD, and fans out what comes.

    It lives in one event loop, runs only while somebody follows, and outlives every fault of Redis: after an outage it goes on from
    the last id it saw.
    """

    def __init__(self) -> None:
        self._redis = async_client()
        self._runs: dict[UUID, Recent] = {}
        self._task: asyncio.Task[None] | None = None
        self._read: asyncio.Task[Any] | None = None
        self._silent = False

    async def follow(self, run_id: UUID) -> Subscription:
        """A subscription to a run: to the newest that its stream holds, and to what is shipped from now on."""
        recent = self._runs.setdefault(run_id, Recent())
        subscription = Subscription(run_id, recent)
        recent.followers.add(subscription)
        if recent.loaded is None:
            recent.loaded = asyncio.get_running_loop().create_task(self._load(run_id, recent), name=f"stream-past-{run_id}")
        try:
            # However many pages of a run come at once, its past is read once; who leaves meanwhile does not end the others' reading.
            await asyncio.shield(recent.loaded)
        except asyncio.CancelledError:
            self.leave(subscription)
            raise
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Ends a subscription; the last one of a run ends the reading of its stream."""
        subscription.recent.followers.discard(subscription)
        if not subscription.recent.followers and self._runs.get(subscription.run_id) is subscription.recent:
            del self._runs[subscription.run_id]
        if not self._runs and self._task is not None:
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

    async def _load(self, run_id: UUID, recent: Recent) -> None:
        """Takes in the newest of a stream, and has the reader go on from there."""
        try:
            entries: Any = await self._redis.xrevrange(stream_key(run_id), count=RECENT_EVENTS)
        except (RedisError, OSError) as failure:
            # What comes next, then: the hole before it is seen by its number, and filled from the archive.
            self._say(failure)
        else:
            recent.last = entries[0][0].decode() if entries else str(BEGINNING)
            recent.add(_points(entries[::-1]))
        self._restart()

    def _restart(self) -> None:
        """Has the reader look at a changed list of runs: the read in flight is given up, which costs a reconnect and loses nothing."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="stream-reader")
        elif self._read is not None:
            self._read.cancel()

    async def _run(self) -> None:
        while self._runs:
            try:
                await self._read_once()
                self._silent = False
                await asyncio.sleep(READ_SECONDS)
            except (RedisError, OSError) as failure:
                self._say(failure)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read_once(self) -> None:
        wanted = {stream_key(run_id): recent.last for run_id, recent in self._runs.items() if recent.loaded and recent.loaded.done()}
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
        recent = self._runs.get(run_id)
        if recent is None or not entries:
            return
        recent.last = entries[-1][0].decode()
        recent.add(_points(entries))

    def _say(self, failure: Exception) -> None:
        if not self._silent:
            log.warning("Redis is away, live points come from the archive: %s", failure)
        self._silent = True


class _Wired(msgspec.Struct):
    """What of a stream entry browsers get; its data is passed on as it is written."""

    t: float
    kind: str
    data: msgspec.Raw


_WIRED = msgspec.json.Decoder(_Wired)


def _points(entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Point]:
    """Stream entries as points. An entry that is no event is skipped: the archive has what the engine wrote."""
    found = []
    for name, fields in entries:
        with contextlib.suppress(ValueError, KeyError, TypeError, msgspec.MsgspecError):
            cursor, event = Cursor.parse(name.decode()), _WIRED.decode(fields[b"e"])
            found.append(point(cursor, event.t, event.kind, bytes(event.data).decode()))
    return found


_READERS: WeakKeyDictionary[asyncio.AbstractEventLoop, StreamReader] = WeakKeyDictionary()


def shared_reader() -> StreamReader:
    """The one reader of this event loop, which in a web process is the only loop."""
    loop = asyncio.get_running_loop()
    if loop not in _READERS:
        _READERS[loop] = StreamReader()
    return _READERS[loop]
