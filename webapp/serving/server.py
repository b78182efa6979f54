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

from redis import Redis

from webapp.core.processes import signal_group
from webapp.core.redis import BLOCK_SECONDS, SOCKET_SECONDS, client
from webapp.runs.environment import child_environment
from webapp.serving.keys import ANSWER_LENGTH, ANSWER_SECONDS, ASKS, CANCELS, HEART, HEART_SECONDS, answer_key
from webapp.settings.env import ENV, PROJECT

log = logging.getLogger(__name__)
TICK_SECONDS = 1
PROGRAM = (sys.executable, "-m", "jobs", "serve")
assert min(BLOCK_SECONDS, HEART_SECONDS) > TICK_SECONDS  # noqa: S101


class Server:
    """Call `run`; it comes back when nobody has asked for `idle_seconds`, when `stop` says so, or where another serves already."""

    def __init__(self, name: str, stop: Callable[[], bool], program: tuple[str, ...] = PROGRAM) -> None:
        self._name, self._stop, self._program = name, stop, program
        self._redis: Redis = client(SOCKET_SECONDS)
        self._home = ENV.var.resolve() / "serving"
        self._child: subprocess.Popen[str] | None = None
        self._open: set[str] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Serves. Raises `RedisError` where Redis goes away; then the process is ended too."""
        if not self._redis.set(HEART, self._name, nx=True, ex=HEART_SECONDS):
            return
        heard_at = time.monotonic()
        try:
            while not self._stop():
                self._redis.set(HEART, self._name, ex=HEART_SECONDS)
                self._look_after_child()
                if self._take() or self._open:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > ENV.serving_idle_seconds:
                    break
        finally:
            self._end_child("The server is being stopped.")
            self._redis.delete(HEART)
            self._redis.close()

    def _take(self) -> bool:
        """Waits a moment for a question or for one that is taken back. Says whether there was any."""
        found: Any = self._redis.blpop([CANCELS, ASKS], timeout=TICK_SECONDS)
        if found is None:
            return False
        key, body = found
        if key.decode() == CANCELS:
            self._tell({"do": "cancel", "id": body.decode()})
            return True
        asked = json.loads(body)
        with self._lock:
            self._open.add(asked["id"])
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
        for line in child.stdout:
            try:
                reply = json.loads(line)
            except ValueError:
                log.warning("serving: a line is no JSON")
                continue
            if reply.get("id"):
                self._answer(redis, str(reply["id"]), line.strip(), ended=reply.get("kind") in ("finished", "refused"))
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
