"""The socket of a run's page: status, then every event after the client's cursor, in order, none lost, none twice.

An event reaches the client by whichever way has it: the newest of the run, which all of its sockets share in memory (`stream.Recent`), or
else the archive (rows) and the stream's past (XRANGE). The rule that keeps them straight: only what follows the cursor directly is sent;
where the newest does not, there is a hole, and the archive is read until it has reached that event. The watcher says how far the archive
is, so that a stream that was flushed, or a Redis that lost its last second or is down, costs a second of delay and no point.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qs
from uuid import UUID

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError

from webapp.accounts.models import User
from webapp.core.together import Together
from webapp.runs.access import runs_in_sight
from webapp.runs.archived import archived
from webapp.runs.stream import BEGINNING, Batch, Cursor, Point, Subscription, batches, shared_reader
from webapp.runs.watch import Glance, Viewer, first_glance, shared_watcher
from webapp.settings.env import ENV

log = logging.getLogger(__name__)

BAD_CURSOR = 4400
NO_ACCESS = 4404
TOO_SLOW = 4408
TOO_MANY = 4429
INTERNAL = 1011

# Where no event comes, a socket looks so often whether the run has changed, or who looks on may no longer.
LOOK_SECONDS = 0.3
BEAT_SECONDS = 5.0
MESSAGES_PER_SECOND = 20
SEND_SECONDS = 15.0
CLOSE_SECONDS = 5.0
# The archive may be ahead of the wire for a moment; only what the wire has not brought by then is read from the archive.
WIRE_LAG_SECONDS = 0.6
MEND_SECONDS = 1.0


class _Left(Exception):
    """The client went away while something was sent to it."""


class RunConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """`/ws/runs/<uuid>/?after=<attempt>-<seq>`. Who may not see the run is refused before the socket opens (HTTP 403)."""

    channel_layer_alias = None

    async def connect(self) -> None:
        """Access, cursor, number of sockets: in this order, so that a stranger learns nothing."""
        self._pump: asyncio.Task[None] | None = None
        self._ended = False
        self._arrivals: deque[float] = deque(maxlen=MESSAGES_PER_SECOND + 1)
        viewer = await self._admitted()
        if viewer is None:
            await self.close(NO_ACCESS)
            return
        # From here on it is somebody of the team, who is told why: a browser sees a close code only of an open socket.
        await self.accept()
        try:
            self._cursor = Cursor.parse(self._asked())
        except ValueError:
            await self._end(BAD_CURSOR)
            return
        if shared_watcher().count(viewer.user_id) >= ENV.sockets_per_user:
            await self._end(TOO_MANY)
            return
        self._viewer = viewer
        shared_watcher().add(viewer)
        self._pump = asyncio.create_task(self._serve(), name=f"run-socket-{viewer.run_id}")

    async def disconnect(self, code: int) -> None:
        """The client is gone."""
        self._ended = True
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A client has nothing to say here; one that says much is shut out."""
        now = time.monotonic()
        self._arrivals.append(now)
        if len(self._arrivals) > MESSAGES_PER_SECOND and now - self._arrivals[0] < 1.0:
            if self._pump is not None:
                self._pump.cancel()
            await self._end(TOO_MANY)

    # -- who, and from where ------------------------------------------------------------------------------------------

    async def _admitted(self) -> Viewer | None:
        """The place in the watcher of somebody who may look, with a first glance at the run; None for a stranger."""
        run_id: UUID = self.scope["url_route"]["kwargs"]["run_id"]
        return await _DOOR.ask((self.scope["user"], run_id, self.scope["session"].session_key))

    def _asked(self) -> str:
        query = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        return str(query.get("after", [BEGINNING])[-1])

    # -- what ---------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        reader, subscription, code = shared_reader(), None, INTERNAL
        try:
            # First the subscription, then the archive: nothing falls between the two.
            subscription = await reader.follow(self._viewer.run_id)
            code = await self._stream(subscription)
        except TimeoutError:
            code = TOO_SLOW
        except _Left:
            # There is nobody to close it for, and nothing to report: pages are closed all the time.
            self._ended = True
        except Exception:
            log.exception("The socket of run %s failed", self._viewer.run_id)
        finally:
            shared_watcher().remove(self._viewer)
            if subscription is not None:
                reader.leave(subscription)
        await self._end(code)

    async def _stream(self, subscription: Subscription) -> int:
        """Sends until something ends it; gives the close code."""
        self._recent = subscription.recent
        self._shown: Glance | None = None
        self._shown_at = self._mended_at = self._beat_at = 0.0
        await self._status()
        await self._from_recent()
        # Nothing is missing where the newest of the stream was reached; of a stream that was flushed that is not known.
        if self._cursor != self._recent.newest or self._cursor == BEGINNING:
            await self._from_archive()
        while not self._viewer.revoked:
            await self._status()
            await self._from_recent()
            await self._mend()
            await self._beat()
            await subscription.arrival(LOOK_SECONDS)
        return NO_ACCESS

    async def _status(self) -> None:
        glance = self._viewer.glance
        if glance is None or glance is self._shown:
            return
        if self._shown is None or glance.text != self._shown.text:
            await self._text(f'{{"type":"run","run":{glance.text}}}')
        self._shown, self._shown_at = glance, time.monotonic()

    async def _beat(self) -> None:
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + BEAT_SECONDS
            await self._text(f'{{"type":"beat","t":{time.time():.3f}}}')

    async def _from_recent(self) -> None:
        """Sends what follows the cursor in the newest of the run, until there is no more, or a hole."""
        while ready := self._recent.after(self._cursor):
            await self._events(ready)

    async def _mend(self) -> None:
        """Reads the archive where the newest shows a hole, or lacks what the archive has had for a while."""
        now, goal = time.monotonic(), self._recent.newest
        if self._shown is not None and now - self._shown_at >= WIRE_LAG_SECONDS:
            goal = max(goal, self._shown.archived)
        if self._cursor < goal and now - self._mended_at >= MEND_SECONDS:
            self._mended_at = now
            await self._from_archive()

    async def _from_archive(self) -> None:
        """Sends what the archive has after the cursor, then what the stream has had before the newest of it, then that."""
        more = True
        while more and not self._viewer.revoked:
            try:
                found, more = await archived(self._viewer.run_id, self._cursor)
            except DatabaseError as failure:
                log.warning("The archive is away, the page waits for it: %s", failure)
                break
            await self._events(found)
        before = None
        while self._cursor != before and self._cursor < self._recent.newest and not self._recent.after(self._cursor):
            before = self._cursor
            await self._following(await shared_reader().backlog(self._viewer.run_id, before))
        await self._from_recent()

    async def _following(self, points: Sequence[Point]) -> None:
        for batch in batches(points):
            if not self._cursor.precedes(batch.first):
                return
            await self._events([batch])

    # -- frames -------------------------------------------------------------------------------------------------------

    async def _events(self, found: Iterable[Batch]) -> None:
        for batch in found:
            await self._text(batch.frame)
            self._cursor = batch.last

    async def _text(self, text: str) -> None:
        # A client that does not read blocks the send; its queue is bounded, and so is our patience.
        async with asyncio.timeout(SEND_SECONDS):
            try:
                await self.send(text_data=text)
            except OSError as left:
                raise _Left from left

    async def _end(self, code: int) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.close(code)
        except TimeoutError:
            # It does not read; the server's own ping gives it up.
            log.info("A client that does not read was left")
        except OSError:
            log.debug("There is nobody left to close it for")


class Nothing(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Every other path: refused like a run that is not there."""

    channel_layer_alias = None

    async def connect(self) -> None:
        """Refuses."""
        await self.close(NO_ACCESS)


def _admit(asked: Sequence[tuple[User, UUID, str]]) -> list[Viewer | None]:
    runs = runs_in_sight((user, run_id) for user, run_id, _ in asked)
    glances = {run.pk: first_glance(run) for run in {run.pk: run for run in runs.values()}.values()}
    seen = [runs.get((user.pk, run_id)) for user, run_id, _ in asked]
    return [
        None if run is None else Viewer(run.pk, run.team_id, user.pk, session_key, glances[run.pk])
        for run, (user, _, session_key) in zip(seen, asked, strict=True)
    ]


_DOOR = Together(_admit)
