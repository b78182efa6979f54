"""A web process and a Redis of the temporary site, as `manage.py up` starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

SECONDS_TO_ANSWER = 30


class Served:
    """The web process at `address`; it can be stopped and started again."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = probe.getsockname()
        self.start()

    def start(self) -> None:
        """Starts it and waits until it answers. Raises `TimeoutError`."""
        from webapp.operate.up.commands import web_process

        # A line for each socket that opens would stand between the figures.
        command = (*web_process(*self.address).command, "--log-level", "warning")
        environment = {**os.environ, "GRAFT_HOSTS": "127.0.0.1,testserver", "GRAFT_LOG_LEVEL": "WARNING"}
        self.web = subprocess.Popen(command, env=environment)
        due = time.monotonic() + SECONDS_TO_ANSWER
        while time.monotonic() < due:
            try:
                with urlopen(f"http://{self.address[0]}:{self.address[1]}/healthz", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError

    def stop(self) -> None:
        """As `manage.py up` stops it: SIGTERM, and its time to end."""
        self.web.terminate()
        self.web.wait(20)


@contextmanager
def served() -> Iterator[Served]:
    """For as long as it lasts. The site's files are collected first."""
    from django.conf import settings

    from webapp.core.redis import server_binary

    path = Path(settings.GRAFT_VAR) / "redis" / "redis.sock"
    path.parent.mkdir(parents=True, exist_ok=True)
    options = ("--port", "0", "--unixsocket", str(path), "--dir", str(path.parent), "--save", "", "--appendonly", "yes")
    redis = subprocess.Popen((str(server_binary()), *options), stdout=subprocess.DEVNULL)
    site = None
    try:
        site = Served()
        yield site
    finally:
        if site is not None:
            site.stop()
        redis.terminate()
        redis.wait(20)
