"""A real site in a temporary folder: redis-server, dispatcher, Celery workers and whatever else a test starts, with shortened clocks.

The processes use the database of the running test (a file, see `webapp.settings.test`), so a test that takes the fixture `site` must use
`django_db(transaction=True)`: what it writes is then there for the others to see.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from django.db import connection
from redis import Redis
from redis.exceptions import RedisError

from webapp.core.processes import PARENT_VARIABLE
from webapp.core.redis import server_binary
from webapp.settings.env import ENV, PROJECT

# Long enough for two busy cores, short enough to wait for: the proportions are those of production.
CLOCKS = {
    "lease_seconds": 4.0,
    "heartbeat_seconds": 0.5,
    "self_fence_seconds": 3.0,
    "reap_grace_seconds": 1.0,
    "stop_grace_seconds": 20.0,
    "cancel_grace_seconds": 1.0,
    "desired_poll_seconds": 0.2,
    "dispatch_seconds": 0.1,
    "doorbell_repeat_seconds": 1.5,
    "worker_forget_seconds": 6.0,
}


class Site:
    """The processes of one site; each writes its output to `<var>/logs/<name>.log`."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.socket = var / "redis" / "redis.sock"
        self.redis_url = f"unix://{self.socket}?db=0"
        self.environment = {
            **os.environ,
            **{f"GRAFT_{name.upper()}": str(value) for name, value in CLOCKS.items()},
            "GRAFT_VAR": str(var),
            "DATABASE_URL": database_url(),
            "GRAFT_SECRET_KEY": "for-tests-only",
            "DJANGO_SETTINGS_MODULE": "webapp.settings.base",
            PARENT_VARIABLE: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
        }
        self.environment.pop("REDIS_URL", None)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("logs", "redis", "runs", "models", "datasets"):
            (var / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def start(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a process of the site by name."""
        with (self.var / "logs" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def log(self, name: str) -> str:
        """What a process has written so far."""
        return (self.var / "logs" / f"{name}.log").read_text(errors="replace")

    def start_redis(self, *more: str) -> None:
        """Starts redis-server with an append-only file, and waits until it answers. `more` are options of its own."""
        options = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.socket.parent), "--appendonly", "yes", "--save", ""]
        options += more
        self.start("redis", sys.executable, "-m", "webapp.core.processes", str(server_binary()), *options)
        wait_for(self.redis_answers, 20)

    def redis_answers(self) -> bool:
        """Whether Redis is there."""
        try:
            return bool(self.redis().ping())
        except RedisError:
            return False

    def redis(self) -> Redis:
        """A client of the site's Redis."""
        return Redis.from_url(self.redis_url, socket_timeout=5)

    def start_dispatcher(self, name: str = "dispatcher") -> subprocess.Popen[bytes]:
        """Starts a dispatcher."""
        return self.start(name, sys.executable, "manage.py", "dispatch")

    def start_worker(self, name: str = "train0", *, queue: str = "train", trainer: str = "", **environment: str) -> subprocess.Popen[bytes]:
        """Starts a worker and waits until it is ready to take work. With `trainer`, options of `tests.webapp.runs.trainer`, that stands
        in for the engine."""
        app = "tests.flow.app" if trainer else "webapp"
        options = ["-Q", queue, "-c", "1", "-n", f"{name}@site", "--without-gossip", "--without-mingle", "-l", "INFO"]
        process = self.start(name, sys.executable, "-m", "celery", "-A", app, "worker", *options, FLOW_TRAINER=trainer, **environment)
        wait_for(lambda: f"{name}@site ready." in self.log(name) or process.poll() is not None, 60)
        assert process.poll() is None, self.log(name)
        return process

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to a process (to it alone, not to its children), and waits for its end."""
        process = self.processes[name]
        process.send_signal(number)
        process.wait(60)

    def trainings(self) -> list[psutil.Process]:
        """The training children of this site that are alive: those that were started for a run, and those that were given one."""
        return [process for process in alive() if "--parent-pid" in command_line(process) and self._trains(process)]

    def _trains(self, process: psutil.Process) -> bool:
        if str(self.var) in " ".join(command_line(process)):
            return True
        try:
            return any(file.path.startswith(str(self.var / "runs")) for file in process.open_files())
        except psutil.Error:
            return False

    def standbys(self) -> list[psutil.Process]:
        """The processes of this site that wait for a run."""
        told = (process for process in alive() if {"standby", "--standby"} & set(command_line(process)))
        return [process for process in told if self._at_home(process) and not self._trains(process)]

    def _at_home(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("HOME", "").startswith(str(self.var / "standby"))
        except psutil.Error:
            return False

    def stop(self) -> None:
        """Kills every process, and waits until no child of this site is left."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        wait_for(lambda: not self.trainings(), 10)


def database_url() -> str:
    """Where the processes of a site find the database of the running test."""
    found = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{found['NAME']}"
    return f"postgres://{found['USER']}:{found['PASSWORD']}@{found['HOST']}:{found['PORT']}/{found['NAME']}"


def alive() -> list[psutil.Process]:
    """Every process that is no zombie."""
    return [process for process in psutil.process_iter(["status"]) if process.info["status"] != psutil.STATUS_ZOMBIE]


def command_line(process: psutil.Process) -> list[str]:
    """The arguments of a process; none where it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_for(condition: Callable[[], Any], seconds: float, *, every: float = 0.05) -> Any:
    """Waits until the condition is true and gives its value; fails after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s: {condition.__qualname__}")
        time.sleep(every)
    return found


@contextmanager
def running_site(settings: Any) -> Iterator[Site]:
    """A site whose folders this process uses as well; `settings` is pytest-django's fixture. Redis runs, nothing else is started yet."""
    # Not pytest's own folder: the path of a Unix socket holds 107 characters.
    var = Path(tempfile.mkdtemp(prefix="graft-site-"))
    site = Site(var)
    settings.GRAFT_VAR = var
    settings.GRAFT_REDIS_URL = site.redis_url
    before = {name: getattr(ENV, name) for name in CLOCKS}
    for name, value in CLOCKS.items():
        setattr(ENV, name, value)
    try:
        site.start_redis()
        yield site
    finally:
        site.stop()
        for name, value in before.items():
            setattr(ENV, name, value)
        shutil.rmtree(var, ignore_errors=True)
