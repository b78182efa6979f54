"""Starting, watching and stopping the whole site."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import http.client
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from django.conf import settings
from redis import RedisError

from webapp.core.redis import client
from webapp.operate.up.child import Child
from webapp.operate.up.commands import redis_process, site_processes

READY_SECONDS = 60.0
# From Ctrl-C to the last process: a training has time for its checkpoint, then everything is killed, all within 10 s.
CHECKPOINT_SECONDS = 6.0
REDIS_SECONDS = 1.5


class CannotStart(Exception):
    """The site cannot be started; the message says why and what to do."""


class Site:
    """All processes of a site on this machine, in one event loop."""

    def __init__(self, host: str, port: int, say: Callable[[str], None]) -> None:
        self.host, self.port, self.say = host, port, say
        self.logs: Path = settings.GRAFT_VAR / "logs"
        self.redis: Child | None = None
        self.children: list[Child] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()
        self._descendants: set[psutil.Process] = set()

    async def run(self, when_ready: Callable[[], None]) -> None:
        """Runs until SIGINT or SIGTERM. Raises `CannotStart` where Redis or the web server does not come up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._over.set)
        try:
            if settings.GRAFT_REDIS_EMBEDDED:
                self.redis = self._start(Child(redis_process(), self.logs))
            await self._until(redis_answers, "Redis does not answer; see its lines above.")
            for process in site_processes(self.host, self.port):
                self.children.append(self._start(Child(process, self.logs)))
            await self._until(lambda: web_answers(self.host, self.port), "The web server does not answer; see its lines above.")
            if not self._over.is_set():
                when_ready()
            await self._over.wait()
        finally:
            await self._stop()

    def _start(self, child: Child) -> Child:
        self._tasks.append(asyncio.create_task(child.run(), name=child.process.name))
        return child

    async def _until(self, ready: Callable[[], bool], otherwise: str) -> None:
        """Waits until it is ready, or until we are told to stop."""
        for _ in range(int(READY_SECONDS / 0.1)):
            if self._over.is_set() or await asyncio.to_thread(ready):
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), 0.1)
        raise CannotStart(otherwise)

    async def _stop(self) -> None:
        """Everything down: work first, Redis last (a training's last events go through it), then whatever is left is killed."""
        self.say("stopping")
        for child in self.children:
            child.stop()
        await self._gone(self.children, CHECKPOINT_SECONDS)
        if self.redis is not None:
            self.redis.stop()
            await self._gone([self.redis], REDIS_SECONDS)
        for child in (*self.children, *filter(None, [self.redis])):
            child.kill()
        for process in self._descendants:
            # A pid that has been given to somebody else is told apart by its time of birth.
            with suppress(psutil.Error):
                process.kill()
        await asyncio.wait(self._tasks, timeout=1.0)
        for task in self._tasks:
            task.cancel()

    async def _gone(self, children: list[Child], seconds: float) -> None:
        """Waits for their end, and keeps account of every descendant seen meanwhile: an orphan is no longer found from here."""
        for _ in range(int(seconds / 0.1)):
            self._descendants |= set(psutil.Process().children(recursive=True))
            if not any(child.alive for child in children):
                return
            await asyncio.sleep(0.1)


def redis_answers() -> bool:
    """Whether Redis takes commands."""
    try:
        with client() as server:
            return bool(server.ping())
    except RedisError:
        return False


def web_answers(host: str, port: int) -> bool:
    """Whether the web server answers `/healthz`."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def reachable(host: str) -> str:
    """An address of this machine that a server bound to `host` answers on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def check_port(host: str, port: int) -> None:
    """Raises `CannotStart` where the port is taken or not ours to take."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as failure:
            what = "is taken by another program" if failure.errno == errno.EADDRINUSE else f"cannot be used ({failure.strerror})"
            raise CannotStart(f"Port {port} on {host} {what}. Choose another: GRAFT_PORT={port + 1} make run") from None


@contextmanager
def only_one(var: Path) -> Iterator[None]:
    """Holds the site's lock. Raises `CannotStart` where another `up` has it. The lock dies with its holder, so none is ever stale."""
    with (var / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CannotStart(f"The site in {var} runs already (process {file.read().strip() or 'unknown'}).") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
