"""What makes a Celery worker one of ours: it dies with who started it, says what it can do, and gives a training time to stop.

Celery forks its pool from the main process. Nothing here starts a thread in that process: a fork beside a running thread may inherit a
lock that nobody will ever release.
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from celery import bootsteps, signals
from celery.worker.state import active_requests
from django.conf import settings
from django.db import DatabaseError, connections
from django.db.models.functions import Now
from redis import RedisError

from webapp.core.processes import die_with_parent
from webapp.core.redis import client
from webapp.runs.models import Worker
from webapp.runs.standby import Standby
from webapp.runs.vitals import versions, vitals
from webapp.settings.env import ENV, PROJECT
from webapp.work.outbox import TRAIN_QUEUE

log = logging.getLogger(__name__)

PROBE_SECONDS = 120

# One byte that main process and pool children share: set when the worker is told to stop. It needs no pid and cannot arrive too early.
_STOPPING = mmap.mmap(-1, 1)
_MAIN_PID = os.getpid()
# The process that waits for the next run, of this pool child alone; and whether this worker takes runs at all, and by which name.
_standby: dict[str, Standby] = {}
_trains_as: list[str] = []
# The answer of `python -m jobs device`, asked before the pool is forked, so that its children know it.
_device: dict[str, Any] = {}


def stopping() -> bool:
    """Whether this worker has been told to stop: it takes no new run, and the one it has writes a checkpoint and goes to the queue."""
    return _STOPPING[0] == 1


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _on_init(instance: Any, **_: Any) -> None:
    """The first word of a worker, of any queue: this module has been imported with the tasks, and nothing is forked yet."""
    die_with_parent()
    instance.app.steps["consumer"].add(Heartbeat)


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _on_setup(sender: str, instance: Any, **_: Any) -> None:
    if trains(instance.app):
        _trains_as[:] = [sender]
        _device.update(probe())
        log.info("%s: %s", sender, _device)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _on_pool_child(**_: Any) -> None:
    die_with_parent(_MAIN_PID)
    for owner in _trains_as:
        standby_of(owner).start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _on_shutting_down(**_: Any) -> None:
    # Within a signal handler: this one byte is all that is safe to write, and all that is needed.
    _STOPPING[0] = 1


def trains(app: Any) -> bool:
    """Whether this worker takes runs."""
    return TRAIN_QUEUE in app.amqp.queues.consume_from


def standby_of(owner: str) -> Standby:
    """The one that waits for this process's next run."""
    return _standby.setdefault(owner, Standby(owner))


def probe() -> dict[str, Any]:
    """What this worker's device can do, asked in a child (it may have to load torch). Empty where the child fails: then nobody knows."""
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "jobs", "device", "--json"], cwd=PROJECT, check=True, capture_output=True, timeout=PROBE_SECONDS
        )
        return dict(json.loads(answer.stdout))
    except (subprocess.SubprocessError, ValueError) as failure:
        log.warning("the device does not say what it can do: %s", failure)
        return {}


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
    """Keeps the worker's row fresh, from the main process's own event loop. While it trains, its supervisor does so as well."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._first = True
        self._hearing = Hearing()

    def start(self, parent: Any) -> None:
        """Called at each connection to the broker."""
        if not trains(parent.app):
            return
        # A worker that has just started has no run; one that has lost its broker for a while may have.
        fields = {"run": None, "versions": versions()} if self._first else {}
        self._first = False
        self._beat(parent, **fields)
        self._timer = parent.timer.call_repeatedly(ENV.heartbeat_seconds, self._beat, (parent,))

    def _beat(self, parent: Any, **fields: Any) -> None:
        """A draining worker hears no doorbell, so that those ring where they are answered; the claim refuses it in any case."""
        draining = beat(parent.hostname, **fields)
        if draining is None:
            return
        if draining and parent.task_consumer.consuming_from(TRAIN_QUEUE):
            log.info("%s: draining, takes no more runs", parent.hostname)
            parent.task_consumer.cancel_by_queue(TRAIN_QUEUE)
        elif not draining and not parent.task_consumer.consuming_from(TRAIN_QUEUE):
            log.info("%s: takes runs again", parent.hostname)
            parent.add_task_queue(TRAIN_QUEUE)
        idle = not draining and not active_requests
        if self._hearing.is_lost(idle=idle, waiting=doorbells() if idle else 0):
            log.error("%s: doorbells ring and are not heard; this worker ends, to be started anew", parent.hostname)
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self, parent: Any) -> None:
        """Called when the connection is lost."""
        if self._timer:
            self._timer.cancel()
            self._timer = None


class Hearing:
    """Finds out a worker that has nothing to do and yet leaves doorbells where they are, as after a broker's restart it may."""

    def __init__(self) -> None:
        self._since: float | None = None

    def is_lost(self, *, idle: bool, waiting: int) -> bool:
        """Whether doorbells have been `waiting` for `ENV.deaf_seconds` in which this worker was `idle`."""
        if not idle or not waiting:
            self._since = None
            return False
        if self._since is None:
            self._since = time.monotonic()
        return time.monotonic() - self._since >= ENV.deaf_seconds


def doorbells() -> int:
    """How many doorbells nobody has answered yet; none where Redis does not say."""
    prefix = settings.CELERY_BROKER_TRANSPORT_OPTIONS["global_keyprefix"]
    try:
        with client() as redis:
            return int(redis.llen(f"{prefix}{TRAIN_QUEUE}"))
    except RedisError:
        return 0


def beat(name: str, **fields: Any) -> bool | None:
    """Writes that the worker is there, what it can do and how it is, and says whether it is draining. A database that does not answer
    (None) is asked again at the next beat.
    """
    try:
        defaults = {"queue": TRAIN_QUEUE, "device": _device, "vitals": vitals(_device), "seen_at": Now(), **fields}
        return Worker.objects.update_or_create(name=name, defaults=defaults)[0].draining
    except DatabaseError as failure:
        log.warning("%s: the database does not answer (%s)", name, failure)
        return None
    finally:
        # The pool's next child is forked from this process: it must inherit no connection.
        connections.close_all()


@contextmanager
def device_locks(owner: str) -> Iterator[bool]:
    """Holds this worker's devices (`flock`) and says whether they were to be had. No two trainings share a GPU of this host."""
    folder = Path(settings.GRAFT_VAR) / "locks"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as held:
        yield all(_lock(held, folder / f"device-{name}.lock") for name in device_names(owner, _device))


def device_names(owner: str, device: dict[str, Any]) -> list[str]:
    """The devices to lock: the visible GPUs by index or UUID; for a CPU, which may be shared, the worker itself."""
    if device.get("kind") != "cuda":
        return [f"cpu-{owner}"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    indices = [name.strip() for name in visible.split(",") if name.strip()] or [str(index) for index in range(device["count"])]
    # In one order everywhere: two workers that share two GPUs must not each hold one and miss the other.
    return sorted(f"cuda-{index}" for index in indices)


def _lock(held: ExitStack, path: Path) -> bool:
    file: IO[str] = held.enter_context(path.open("a"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("%s is held by another training of this host", path.name)
        return False
    return True
