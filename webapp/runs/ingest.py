"""From a child's `events.jsonl` to the wire and the archive.

The file is the record. Two shippers read it, each at its own position: the wire (a Redis Stream, for pages that look on) and the archive
(rows of `Record` and the run's summary, in the database). An outage of one does not hold up the other, and either catches up afterwards.

The wire comes first: it has a thread of its own, so that a database that is busy with other runs makes no page late. Only steps run ahead
of the archive, though: at any other event a page asks the server for what it says, so it waits until the archive has it.
"""

from __future__ import annotations

import logging
import stat
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import Max
from django.db.models.functions import Now
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from jobs.events import Event
from webapp.runs.fold import Summary, fold
from webapp.runs.keys import stream_key
from webapp.runs.lease import since_start
from webapp.runs.listed import listed
from webapp.runs.models import Record, Run
from webapp.runs.services import points
from webapp.runs.states import ACTIVE
from webapp.settings.env import ENV

log = logging.getLogger(__name__)

STREAM_LENGTH = 20_000
STREAM_SECONDS = 7 * 86_400
BATCH = 500
BATCHES = 20
READ_BYTES = 4 * 2**20
# With the socket's batches and the page's drawing, a point is on the page within a second.
WIRE_SECONDS = 0.2
WIRE_PAUSE_SECONDS = 2.0


class Fenced(Exception):
    """The run belongs to another attempt, or to none: this one must stop and write nothing more."""


class Tail:
    """The events of a growing file, from a position on. A last line without its newline is still being written and is left for later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def lines(self, limit: int = BATCH) -> list[bytes]:
        """Up to `limit` whole lines after the position. It moves when the caller sets `offset`."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                lines = file.read(READ_BYTES).splitlines(keepends=True)
                while lines and not lines[0].endswith(b"\n") and (more := file.read(READ_BYTES)):
                    lines = (lines[0] + more).splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return lines[:limit] if not lines or lines[-1].endswith(b"\n") else lines[:-1][:limit]

    def read(self, limit: int = BATCH) -> tuple[list[Event], int]:
        """Up to `limit` events after the position, and the position behind them."""
        lines = self.lines(limit)
        return [Event.from_line(_stored(line)) for line in lines], self.offset + sum(map(len, lines))


def _stored(line: bytes) -> bytes:
    """PostgreSQL's JSON holds no NUL character."""
    return line.replace(b"\\u0000", b"\\ufffd")


class _Head(msgspec.Struct):
    """What the wire must know of an event; the rest of the line goes on as it is."""

    seq: int
    kind: str


_HEAD = msgspec.json.Decoder(_Head)


class Wire:
    """Ships to the Redis Stream. Whatever Redis does, nothing is raised: the archive has it all, and pages can read that."""

    def __init__(self, run_id: object, attempt: int, path: Path) -> None:
        self.key, self.attempt, self.tail = stream_key(run_id), attempt, Tail(path)
        self.ended = False
        self._down = False
        self._again_at = 0.0
        self._redis: Any = Redis.from_url(settings.GRAFT_REDIS_URL, socket_timeout=5, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))

    def ship(self, archived: int | None = None) -> bool:
        """Sends the next batch; beyond the position `archived` of the file steps alone, up to the first other event. Says whether there may
        be more to send at once.
        """
        lines = [] if self.ended or time.monotonic() < self._again_at else self.tail.lines()
        events = _heads(lines, len(lines) if archived is None else _within(lines, archived - self.tail.offset))
        if not events:
            return False
        try:
            self._send(events, lines)
        except RedisError as failure:
            if not self._down:
                log.warning("%s: Redis does not answer, the page must wait (%s)", self.key, failure)
            self._down, self._again_at = True, time.monotonic() + WIRE_PAUSE_SECONDS
            return False
        self._down, self.tail.offset = False, self.tail.offset + sum(map(len, lines[: len(events)]))
        return True

    def close(self) -> None:
        """Closes the connection."""
        self._redis.close()

    def _send(self, events: list[_Head], lines: list[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for event, line in zip(events, lines, strict=False):
            body = b'{"attempt":%d,' % self.attempt + _stored(line).strip()[1:]
            pipeline.xadd(self.key, {b"e": body}, id=f"{self.attempt}-{event.seq}", maxlen=STREAM_LENGTH, approximate=True)
        pipeline.expire(self.key, STREAM_SECONDS)
        failures = [answer for answer in pipeline.execute(raise_on_error=False) if isinstance(answer, Exception)]
        for failure in failures:
            # An id that is not above the top was sent before an answer got lost, unless a newer attempt has written: then we are stale.
            if not (isinstance(failure, ResponseError) and "equal or smaller" in str(failure)):
                raise failure
        if failures:
            top = self._redis.xinfo_stream(self.key)["last-generated-id"].decode()
            self.ended = int(top.split("-")[0]) > self.attempt


def _within(lines: list[bytes], size: int) -> int:
    """How many of the lines end within so many bytes."""
    for count, line in enumerate(lines):
        size -= len(line)
        if size < 0:
            return count
    return len(lines)


def _heads(lines: list[bytes], sure: int) -> list[_Head]:
    """The heads of the first `sure` lines and of the steps that follow them. Raises `msgspec.MsgspecError` where a line is no event."""
    found = []
    for count, line in enumerate(lines):
        head = _HEAD.decode(line)
        if count >= sure and head.kind != "step":
            break
        found.append(head)
    return found


class Archive:
    """Ships to the database: records and the run's summary in one transaction that names the attempt."""

    def __init__(self, run: Run, path: Path) -> None:
        self.run_id, self.attempt, self.tail, self.folder = run.id, run.attempt, Tail(path), run.folder
        self.summary: Summary = run.summary
        self.last_step, self.total_steps, self.checkpoint_step = run.last_step, run.total_steps, run.last_checkpoint_step

    def ship(self) -> list[Event]:
        """Writes the next batch and gives its events. Raises `Fenced` where the run is no longer this attempt's, and `DatabaseError`."""
        events, offset = self.tail.read()
        if not events:
            return []
        summary, fields = self._fold(events)
        rows = [
            Record(
                run_id=self.run_id,
                attempt=self.attempt,
                seq=event.seq,
                kind=event.kind,
                step=event.data.get("step"),
                at=event.t,
                data=event.data,
            )
            for event in events
        ]
        with transaction.atomic():
            # First the guard: it locks the run's row, so nobody can take the run before the rows are in.
            mine = Run.objects.filter(pk=self.run_id, attempt=self.attempt, state__in=ACTIVE)
            if mine.update(summary=summary, duration=since_start(), changed_at=Now(), **listed(summary), **fields) != 1:
                raise Fenced
            # A batch whose commit was answered by a broken connection may be there already.
            Record.objects.bulk_create(rows, ignore_conflicts=True)
        self.tail.offset, self.summary = offset, summary
        self.last_step, self.total_steps = fields["last_step"], fields["total_steps"]
        self.checkpoint_step = fields["last_checkpoint_step"]
        return events

    def _fold(self, events: list[Event]) -> tuple[Summary, dict[str, int]]:
        summary, step, total, checkpoint = self.summary, self.last_step, self.total_steps, self.checkpoint_step
        for event in events:
            summary = fold(summary, event)
            if event.kind == "plan":
                step, total = int(event.data.get("start_step") or 0), int(event.data["total_steps"])
            elif event.kind == "step":
                step = int(event.data["step"])
            elif event.kind == "checkpoint":
                checkpoint = int(event.data["step"])
        fields = {"last_step": step, "total_steps": total, "last_checkpoint_step": checkpoint}
        if any(event.kind in ("checkpoint", "finished") for event in events):
            # Measured, not summed: old ones are deleted by the engine without a word.
            fields["checkpoint_bytes"] = bytes_in(self.folder.glob("attempt-*/checkpoints/**/*"))
        return summary, fields


def bytes_in(paths: Iterable[Path]) -> int:
    """The size of the files among `paths`; one that goes away meanwhile counts nothing."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.lstat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


class Ingest:
    """Both shippers of one attempt. `held`: whether the attempt may still write, by its own clock; the wire is not asked otherwise."""

    def __init__(self, run: Run, path: Path, held: Callable[[], bool] = lambda: True) -> None:
        self.path = path
        self.archive = Archive(run, path)
        self.wire = Wire(run.id, run.attempt, path)
        self._held = held
        self._database_down = False
        self._run, self._unkept = run, 0
        self._one = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_shipping, name="wire", daemon=True)

    def start(self) -> None:
        """From now on the wire has what is written soon, whatever the archive does."""
        self._thread.start()

    def ship(self) -> list[Event]:
        """Ships what there is; gives the events that reached the archive. A database that is down is tried again at the next call.

        Raises `Fenced`.
        """
        archived: list[Event] = []
        self._ship_wire()
        # Not for ever: between two calls the supervisor renews the lease.
        until = time.monotonic() + ENV.heartbeat_seconds
        try:
            for _ in range(BATCHES):
                archived += (batch := self.archive.ship())
                if not batch or time.monotonic() > until:
                    break
            self._keep(archived)
            self._database_down = False
        except DatabaseError as failure:
            if not self._database_down:
                log.warning("run %s: the database does not answer, events wait in the file (%s)", self.archive.run_id, failure)
            self._database_down = True
        except Fenced:
            self.wire.ended = True
            raise
        self._ship_wire()
        return archived

    def _ship_wire(self) -> None:
        with self._one:
            for _ in range(BATCHES):
                # While the database is away no page can ask for anything, and nothing waits for it.
                if not self._held() or not self.wire.ship(None if self._database_down else self.archive.tail.offset):
                    break

    def _keep_shipping(self) -> None:
        try:
            while not self._over.wait(WIRE_SECONDS):
                self._ship_wire()
        except (msgspec.MsgspecError, RecursionError):
            # The archive meets the same line, and says what is wrong with the run.
            log.exception("run %s: a line is no event", self.archive.run_id)

    def _keep(self, archived: list[Event]) -> None:
        """Has the copy of the curves written when the run has grown by enough, or ends."""
        self._unkept += sum(event.kind == "step" for event in archived)
        if self._unkept >= points.KEEP_STEPS or any(event.kind == "finished" for event in archived):
            self._unkept = 0
            points.keep(self._run)

    def skip_archived(self) -> None:
        """Goes on behind the events that the archive has of this attempt, as another process left it. Raises `msgspec.MsgspecError`."""
        top = Record.objects.filter(run=self._run, attempt=self._run.attempt).aggregate(Max("seq", default=0))["seq__max"]
        tail = self.archive.tail
        while known := [line for line in tail.lines() if _HEAD.decode(line).seq <= top]:
            tail.offset += sum(map(len, known))
        self.wire.tail.offset = tail.offset

    @property
    def is_behind(self) -> bool:
        """Whether the archive still lacks complete events of the file."""
        return bool(self.archive.tail.lines(limit=1))

    def close(self) -> None:
        """Ends the wire's thread and lets go of Redis."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self.wire.close()


def ship_rest(run: Run) -> bool:
    """Ships what a lost attempt has written and its supervisor, killed, has not shipped: its next attempt may go on from behind it. Gives
    whether all is in the archive. The training must write no more. Raises `Fenced`, and `msgspec.MsgspecError` where a line is no event.
    """
    ingest = Ingest(run, run.attempt_folder(run.attempt) / "events.jsonl")
    try:
        ingest.skip_archived()
        ingest.ship()
        return not ingest.is_behind
    finally:
        ingest.close()
