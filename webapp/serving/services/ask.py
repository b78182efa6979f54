"""Use case: ask a model, and hear its answer as it is written, from any web process on any host.

The question goes into a list, the answer comes by a stream of its own; a doorbell wakes the worker where nobody serves. Nothing of it is
kept: who goes away before the end asks again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

from asgiref.sync import sync_to_async
from redis import RedisError

from webapp.celery import app
from webapp.core.redis import async_client
from webapp.serving.keys import ANSWER_SECONDS, ASKS, CANCELS, HEART, answer_key
from webapp.serving.policy import training_first
from webapp.settings.env import ENV

SERVE_TASK = "serving.serve"
SERVE_QUEUE = "serve"
# Questions that may wait for the worker, and how long one waits for its first reply while nobody is heard of.
MOST_WAITING = 64
SILENCE_SECONDS = 30.0
# A question that was taken may wait so long for its next word: a large model is being loaded.
STUCK_SECONDS = 600.0
RING_SECONDS = 3.0
_BLOCK_MILLISECONDS = 1000
_ENDS = ("finished", "refused")


class Refused(Exception):
    """The question is not answered: a code, words, and after how many seconds another try may help (None: never)."""

    def __init__(self, code: str, message: str, *, retry_after: int | None = None, queue_position: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after, self.queue_position = code, message, retry_after, queue_position


async def ask(model: Mapping[str, Any], question: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The replies to a question (`jobs.serving.spec`: the fields of `ModelRef` and of `Ask`), the last of them `finished`.

    Raises `Refused`. Who stops listening takes the question back.
    """
    await _admit()
    ask_id, ended = uuid4().hex, False
    body = json.dumps({"id": ask_id, "model": dict(model), **question})
    redis = async_client()
    try:
        await _put(redis, body)
        async for reply in _replies(redis, ask_id):
            ended = reply["kind"] in _ENDS
            if reply["kind"] == "refused":
                raise Refused(str(reply.get("code", "")), str(reply.get("message", "")), retry_after=_retry(str(reply.get("code", ""))))
            yield reply
    except RedisError as failure:
        raise Refused("serving_unavailable", "The server's queue does not answer.", retry_after=10) from failure
    finally:
        await asyncio.shield(_leave(redis, ask_id, body, ended=ended))


async def _admit() -> None:
    if ENV.serving == "off":
        raise Refused("serving_off", "This site does not serve models (GRAFT_SERVING).")
    if await sync_to_async(training_first)():
        raise Refused("training_first", "The site is training, which goes first here.", retry_after=60)


async def _put(redis: Any, body: str) -> None:
    waiting = await redis.llen(ASKS)
    if waiting >= MOST_WAITING:
        words = f"{waiting} questions wait already. Try again in a few seconds."
        raise Refused("serving_busy", words, retry_after=5, queue_position=waiting + 1)
    await redis.rpush(ASKS, body)
    await redis.expire(ASKS, ANSWER_SECONDS)


def _ring() -> None:
    app.send_task(SERVE_TASK, queue=SERVE_QUEUE)


async def _replies(redis: Any, ask_id: str) -> AsyncIterator[dict[str, Any]]:
    """The replies as they come, until the last. Raises `Refused` where nobody serves, who took the question is gone, or all is silent."""
    cursor, heard_at, rung_at, taken_by = "0-0", time.monotonic(), 0.0, ""
    while True:
        heart = (await redis.get(HEART) or b"").decode()
        if taken_by and heart != taken_by:
            raise Refused("serving_lost", "The worker that was answering has died. Ask again.", retry_after=5)
        if not heart and time.monotonic() - rung_at > RING_SECONDS:
            # Again and again: a worker that was killed is taken for alive until its key has run out.
            await sync_to_async(_ring)()
            rung_at = time.monotonic()
        found = await redis.xread({answer_key(ask_id): cursor}, count=200, block=_BLOCK_MILLISECONDS)
        for _key, entries in found:
            for entry_id, fields in entries:
                cursor = entry_id
                reply = json.loads(fields[b"r"])
                if reply["kind"] == "taken":
                    taken_by = str(reply["by"])
                    continue
                yield reply
                if reply["kind"] in _ENDS:
                    return
        if found or (heart and not taken_by):
            heard_at = time.monotonic()
        elif time.monotonic() - heard_at > (STUCK_SECONDS if taken_by else SILENCE_SECONDS):
            raise Refused("serving_unavailable", "No worker serves models now.", retry_after=10)


async def _leave(redis: Any, ask_id: str, body: str, *, ended: bool) -> None:
    try:
        # One that still waits is taken out of the list; one that was taken is taken back.
        if not ended and not await redis.lrem(ASKS, 0, body):
            await redis.rpush(CANCELS, ask_id)
            await redis.expire(CANCELS, ANSWER_SECONDS)
        await redis.delete(answer_key(ask_id))
    except RedisError:
        pass  # it expires
    finally:
        await redis.aclose()


def _retry(code: str) -> int | None:
    return 5 if code in ("serving_failed", "serving_memory", "serving_lost") else None
