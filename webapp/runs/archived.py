"""The archive as sockets read it: pages that come back together ask for the same rows, which are read and written as frames once."""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from uuid import UUID

from channels.db import database_sync_to_async
from django.db.models import Q, TextField
from django.db.models.functions import Cast

from webapp.runs.models import Record
from webapp.runs.stream import FRAME_EVENTS, Batch, Cursor, batches, point


class Archived(NamedTuple):
    """Records after a cursor, in order, and whether there may be more."""

    batches: list[Batch]
    more: bool


_READING: dict[tuple[UUID, Cursor], asyncio.Task[Archived]] = {}


async def archived(run_id: UUID, after: Cursor) -> Archived:
    """The next 500 records of a run after a cursor. Whoever asks for the same while they are read gets the same. Raises `DatabaseError`."""
    key = (run_id, after)
    if key not in _READING:
        _READING[key] = asyncio.get_running_loop().create_task(_in_thread(run_id, after), name=f"archive-{run_id}")
        _READING[key].add_done_callback(lambda _task: _READING.pop(key))
    # Who leaves meanwhile does not end the others' reading.
    return await asyncio.shield(_READING[key])


def _records(run_id: UUID, after: Cursor) -> Archived:
    later = Q(attempt=after.attempt, seq__gt=after.seq) | Q(attempt__gt=after.attempt)
    rows = Record.objects.filter(later, run=run_id).order_by("attempt", "seq")
    # As text: to read the JSON and to write it again takes most of the time.
    values = rows.values_list("attempt", "seq", "at", "kind", Cast("data", TextField()))[:FRAME_EVENTS]
    found = [point(Cursor(attempt, seq), at, kind, data) for attempt, seq, at, kind, data in values]
    return Archived(batches(found), len(found) == FRAME_EVENTS)


# In a thread of its own: the thread that Django shares would do one query after another.
_in_thread = database_sync_to_async(_records, thread_sensitive=False)
