"""The one who serves: a task that keeps `python -m jobs serve` alive, brings it questions and takes its replies to who asked.

One at a time on a site, by the key `keys.HEART`. The process knows neither database nor Redis, and reads of the site's files the models
and what runs left behind alone. It ends with us, and after a time without questions.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from redis import Redis, RedisError

from webapp.core.processes import signal_group
from webapp.core.redis import BLOCK_SECONDS, SOCKET_SECONDS, client
from webapp.runs.environment import child_environment
from webapp.serving.keys import ANSWER_LENGTH, ANSWER_SECONDS, ASKS, CANCELS, HEART, HEART_SECONDS, answer_key
from webapp.serving.policy import training_first
from webapp.settings.env import ENV, PROJECT

log = logging.getLogger(__name__)
TICK_SECONDS = 1
POLICY_SECONDS = 5.0
# Questions that the process has at once; it answers so many together as fit.
MOST_OPEN = 128
PROGRAM = (sys.executable, "-m", "jobs", "serve")
assert min(BLOCK_SECONDS, HEART_SECONDS) > TICK_SECONDS  # noqa: S101


class Server:
    """Call `run`; it comes back when nobody has asked for `idle_seconds`, when `stop` says so, or where another serves already."""

    def __init__(self, name: str, stop: Callable[[], bool], program: tuple[str, ...] = PROGRAM) -> None:
        # Its own for each time it serves: who waits for an answer sees that it is not the one who took the question.
        self._mark = f"{name} {uuid4().hex}"
        self._stop, self._program = stop, program
        self._redis: Redis = client(SOCKET_SECONDS)
        self._home = ENV.var.resolve() / "serving"
        self._child: subprocess.Popen[str] | None = None
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._look_at = 0.0

    def run(self) -> None:
        """Serves. Raises `RedisError` where Redis goes away; then the process is ended too."""
        if not self._redis.set(HEART, self._mark, nx=True, ex=HEART_SECONDS):
            return
        heard_at = time.monotonic()
        try:
            while not self._stop() and self._is_ours():
                self._redis.set(HEART, self._mark, ex=HEART_SECONDS)
                self._look_after_child()
                self._yield_to_training()
                if self._take() or self._open:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > ENV.serving_idle_seconds:
                    break
        finally:
            self._end_child("The server is being stopped.")
            if self._is_ours():
                self._redis.delete(HEART)
            self._redis.close()

    def _is_ours(self) -> bool:
        """Whether nobody else serves, as may be after this process was stopped for long."""
        held: Any = self._redis.get(HEART)
        return held is None or held.decode() == self._mark

    def _yield_to_training(self) -> None:
        """Gives the device back where training goes first; answers that are on their way are finished before."""
        if self._child is not None and not self._open and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + POLICY_SECONDS
            if training_first():
                self._end_child("Training goes first.")

    def _take(self) -> bool:
        """Waits a moment for a question or for one that is taken back. Says whether there was any."""
        # Beyond so many the rest waits in the list, where it is counted and can be taken out.
        keys = [CANCELS, ASKS] if len(self._open) < MOST_OPEN else [CANCELS]
        found: Any = self._redis.blpop(keys, timeout=TICK_SECONDS)
        if found is None:
            return False
        key, body = found
        if key.decode() == CANCELS:
            self._tell({"do": "cancel", "id": body.decode()})
            return True
        asked = json.loads(body)
        with self._lock:
            self._open.add(asked["id"])
        self._answer(self._redis, asked["id"], json.dumps({"kind": "taken", "by": self._mark}), ended=False)
        if self._child is None:
            self._start()
        self._tell({"do": "ask", **asked})
        return True

    def _start(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(mode=0o700, parents=True)
        private = ENV.var.resolve()
        options = ["--private", str(private), "--idle-seconds", str(ENV.serving_idle_seconds)]
        with (self._home / "serve.log").open("ab") as output:
            self._child = subprocess.Popen(
                [*self._program, *options],
                cwd=PROJECT,
                env=child_environment(self._home),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        log.info("serving: process %s", self._child.pid)
        threading.Thread(target=self._pass_on, args=(self._child,), daemon=True).start()

    def _tell(self, command: dict[str, Any]) -> None:
        if self._child is None or self._child.stdin is None:
            return
        try:
            self._child.stdin.write(json.dumps(command) + "\n")
            self._child.stdin.flush()
        except OSError:
            self._look_after_child()

    def _pass_on(self, child: subprocess.Popen[str]) -> None:
        """In a thread of its own: the replies of one process, to the streams of who asked."""
        assert child.stdout is not None  # noqa: S101
        redis = client(SOCKET_SECONDS)
        try:
            for line in child.stdout:
                reply = json.loads(line)
                if reply.get("id"):
                    self._answer(redis, str(reply["id"]), line.strip(), ended=reply.get("kind") in ("finished", "refused"))
        except (RedisError, ValueError):
            # Replies that cannot be passed on are lost: who waits for them is told by the end of the process.
            log.exception("serving: a reply could not be passed on")
            signal_group(child.pid, signal.SIGKILL)
        finally:
            redis.close()

    def _answer(self, redis: Redis, ask_id: str, line: str, *, ended: bool) -> None:
        pipeline = redis.pipeline(transaction=False)
        pipeline.xadd(answer_key(ask_id), {"r": line}, maxlen=ANSWER_LENGTH, approximate=True)
        pipeline.expire(answer_key(ask_id), ANSWER_SECONDS)
        pipeline.execute()
        if ended:
            with self._lock:
                self._open.discard(ask_id)

    def _look_after_child(self) -> None:
        """Where the process has died, those who wait for it are told; the next question starts another."""
        if self._child is not None and self._child.poll() is not None:
            log.warning("serving: process %s has ended with %s", self._child.pid, self._child.returncode)
            self._end_child("The process that answers has died. Ask again.")

    def _end_child(self, words: str) -> None:
        if self._child is not None:
            signal_group(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None
        with self._lock:
            lost, self._open = self._open, set()
        for ask_id in lost:
            reply = {"id": ask_id, "kind": "refused", "code": "serving_lost", "message": words}
            self._answer(self._redis, ask_id, json.dumps(reply), ended=True)
