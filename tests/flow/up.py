"""A site started as a user starts it, by `manage.py up`, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.flow.site import command_line, wait_for
from webapp.settings.env import PROJECT

HOST = "127.0.0.1"
# A site of the test's own: nothing of the environment it runs in.
_FOREIGN = ("GRAFT_", "DJANGO_", "DATABASE_URL", "REDIS_URL")


class Up:
    """A site started by `up` on a free port, without a GPU; `environment` is added to what it is started with."""

    def __init__(self, var: Path, environment: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self.var = var
        self.output = var.parent / "up.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        own = {"GRAFT_VAR": str(var), "GRAFT_HOST": HOST, "GRAFT_PORT": str(self.port), "CUDA_VISIBLE_DEVICES": ""}
        self.environment = {**kept, **own, **environment}
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Runs `manage.py up`."""
        with self.output.open("ab") as output:
            command = [sys.executable, "manage.py", "up"]
            return subprocess.Popen(command, cwd=PROJECT, env=self.environment, stdout=output, stderr=output, start_new_session=True)

    def text(self) -> str:
        """All that it has printed."""
        return self.output.read_text(errors="replace")

    def ready(self, seconds: float = 90) -> None:
        """Waits until everything is up, the three workers included."""
        wait_for(lambda: self.text().count("ready.") >= 3 or self.process.poll() is not None, seconds)
        assert self.process.poll() is None, self.text()

    def tree(self) -> list[psutil.Process]:
        """Every process of the site."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def named(self, part: str) -> psutil.Process:
        """The direct child whose command holds `part`."""
        (found,) = [child for child in psutil.Process(self.process.pid).children() if part in " ".join(command_line(child))]
        return found

    def interrupt(self, seconds: float) -> int:
        """Ctrl-C; gives the exit status. Fails where it has not ended after `seconds`."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)


@contextmanager
def running_up(environment: dict[str, str]) -> Iterator[Up]:
    """A site in a temporary folder; at the end nothing of it is left."""
    # Not pytest's own folder: the path of a Unix socket holds 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="graft-up-"))
    running = Up(folder / "var", environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def dead(processes: list[psutil.Process]) -> bool:
    """Whether none of them is alive."""
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)
