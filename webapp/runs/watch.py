"""One watcher in each web process: once a second it asks the database what has become of every run that somebody looks at, and whether
those who look still may. There is no channel layer: a query a second is cheaper than a second way of delivery that may not deliver.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from django.db import DatabaseError
from django.db.models import OuterRef, Subquery

from webapp.accounts.access import in_force
from webapp.accounts.models import Membership, User
from webapp.accounts.sockets import people
from webapp.runs.models import Record, Run
from webapp.runs.order import places
from webapp.runs.services.status import status
from webapp.runs.states import State
from webapp.runs.stream import BEGINNING, Cursor

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
# Every third tick looks at the sessions too, so that a logout closes its sockets within 5 s.
SESSION_TICKS = 3


class Glance(NamedTuple):
    """A run as it is now: its status as JSON text, and how far its archive reaches."""

    text: str
    archived: Cursor


def first_glance(run: Run) -> Glance:
    """What a socket shows before the watcher has looked: the run's status. How far the archive is, the socket finds out by reading it."""
    return Glance(_text(run, None), BEGINNING)


def _text(run: Run, place: int | None) -> str:
    return json.dumps(status(run, place), separators=(",", ":"), allow_nan=False)


@dataclass(eq=False)
class Viewer:
    """One open socket. The watcher writes `glance` and `revoked`; the consumer reads them."""

    run_id: UUID
    team_id: UUID
    user_id: UUID
    session_key: str
    glance: Glance | None = None
    revoked: bool = False


@dataclass
class _Round:
    """What one tick found."""

    glances: dict[UUID, Glance]
    members: dict[tuple[UUID, UUID], User]
    sessions: dict[str, User] | None


class Watcher:
    """Watches while somebody looks, in one event loop. A database that is away is asked again in a second."""

    def __init__(self) -> None:
        self.viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._seen: dict[UUID, tuple[object, ...]] = {}
        self._glances: dict[UUID, Glance] = {}
        self._away = False

    def add(self, viewer: Viewer) -> None:
        """Starts to watch for a socket."""
        self.viewers.add(viewer)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="run-watcher")

    def remove(self, viewer: Viewer) -> None:
        """Ends it."""
        self.viewers.discard(viewer)

    def count(self, user_id: UUID) -> int:
        """How many sockets a person has open in this process."""
        return sum(viewer.user_id == user_id for viewer in self.viewers)

    async def _run(self) -> None:
        tick = 0
        while self.viewers:
            try:
                await self._look(with_sessions=tick % SESSION_TICKS == 0)
                self._away = False
            except DatabaseError as failure:
                if not self._away:
                    log.warning("The database is away, pages wait for it: %s", failure)
                self._away = True
            tick += 1
            await asyncio.sleep(TICK_SECONDS)
        self._seen.clear()
        self._glances.clear()

    async def _look(self, *, with_sessions: bool) -> None:
        viewers = list(self.viewers)
        found = await database_sync_to_async(self._ask, thread_sensitive=False)(viewers, with_sessions)
        for viewer in viewers:
            viewer.glance = found.glances.get(viewer.run_id)
            if viewer.glance is None or not _may_look(viewer, found):
                viewer.revoked = True

    def _ask(self, viewers: Collection[Viewer], with_sessions: bool) -> _Round:
        glances = self._runs({viewer.run_id for viewer in viewers})
        members = _members({viewer.user_id for viewer in viewers}, {viewer.team_id for viewer in viewers})
        keys = {viewer.session_key for viewer in viewers}
        return _Round(glances, members, people(keys) if with_sessions else None)

    def _runs(self, run_ids: set[UUID]) -> dict[UUID, Glance]:
        newest = Record.objects.filter(run=OuterRef("pk")).order_by("-attempt", "-seq")
        rows = Run.objects.filter(pk__in=run_ids).annotate(
            archived_attempt=Subquery(newest.values("attempt")[:1]), archived_seq=Subquery(newest.values("seq")[:1])
        )
        glances = {}
        queues: dict[str, dict[UUID, int]] = {}
        for run in rows:
            archived = Cursor(run.archived_attempt or 0, run.archived_seq or 0)
            # A place in the queue changes without the run's own row.
            place = None
            if run.state == State.QUEUED:
                if run.queue not in queues:
                    queues[run.queue] = places(run.queue)
                place = queues[run.queue].get(run.pk)
            mark = (run.changed_at, run.state, run.desired, run.attempt, run.last_step, run.last_checkpoint_step, archived, place)
            if self._seen.get(run.pk) != mark:
                self._seen[run.pk] = mark
                self._glances[run.pk] = Glance(_text(run, place), archived)
            glances[run.pk] = self._glances[run.pk]
        return glances


def _members(user_ids: Iterable[UUID], team_ids: Iterable[UUID]) -> dict[tuple[UUID, UUID], User]:
    rows = in_force(Membership.objects.filter(user__in=user_ids, team__in=team_ids)).select_related("user")
    return {(row.user_id, row.team_id): row.user for row in rows}


def _may_look(viewer: Viewer, found: _Round) -> bool:
    user = found.members.get((viewer.user_id, viewer.team_id))
    if user is None or found.sessions is None:
        return user is not None
    signed_in = found.sessions.get(viewer.session_key)
    return signed_in is not None and signed_in.pk == user.pk


_WATCHERS: WeakKeyDictionary[asyncio.AbstractEventLoop, Watcher] = WeakKeyDictionary()


def shared_watcher() -> Watcher:
    """The one watcher of this event loop, which in a web process is the only loop."""
    loop = asyncio.get_running_loop()
    if loop not in _WATCHERS:
        _WATCHERS[loop] = Watcher()
    return _WATCHERS[loop]
