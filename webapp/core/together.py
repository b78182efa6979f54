"""Questions of many sockets to the database, answered together.

After a restart all pages come back within seconds. Had each its own connection and its own queries, that would take most of a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async

Q = TypeVar("Q")
A = TypeVar("A")

# So many are answered by one question to the database; the next ones wait for it.
AT_ONCE = 200


class Together(Generic[Q, A]):
    """`answer` gives the answers to a list of questions, in their order. It is called in a thread, with all that were asked meanwhile."""

    def __init__(self, answer: Callable[[Sequence[Q]], Sequence[A]]) -> None:
        self._answer = database_sync_to_async(answer, thread_sensitive=False)
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[A], Q]]] = WeakKeyDictionary()

    async def ask(self, question: Q) -> A:
        """The answer to one of them. Raises what `answer` raises."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[A] = loop.create_future()
        if loop in self._waiting:
            self._waiting[loop].append((mine, question))
        else:
            self._waiting[loop] = [(mine, question)]
            # Held by the loop for as long as it runs, and by this name until then.
            self._task = loop.create_task(self._run(loop), name="together")
        return await mine

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting[loop]:
            asked, self._waiting[loop] = self._waiting[loop][:AT_ONCE], self._waiting[loop][AT_ONCE:]
            try:
                answers = await self._answer([question for _, question in asked])
            except Exception as failure:  # noqa: BLE001 - it is raised where it was asked
                for future, _ in asked:
                    if not future.done():
                        future.set_exception(failure)
                continue
            for (future, _), found in zip(asked, answers, strict=True):
                if not future.done():
                    future.set_result(found)
        del self._waiting[loop]
