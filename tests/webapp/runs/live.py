"""A real web server with a real Redis, a browser's end of a socket, and a training that writes events like the engine does."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.test import Client
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from jobs.events import EventWriter
from tests.flow.site import Site, wait_for
from webapp.accounts.models import User
from webapp.operate.up.commands import web_process
from webapp.operate.up.site import web_answers
from webapp.runs.ingest import Archive, Wire
from webapp.runs.models import Run

HOST = "127.0.0.1"


class Web:
    """The web server of a site, on a port of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Starts it (again) and waits until it answers."""
        self.site.start("web", *web_process(HOST, self.port).command)
        wait_for(lambda: web_answers(HOST, self.port), 30)

    def page(self, run: Run, cookie: str, after: str | None = None, **headers: str) -> Page:
        """A page of the run that has just opened its socket."""
        query = "" if after is None else f"?after={after}"
        origin = headers.pop("origin", f"http://{HOST}:{self.port}")
        sent = {"Cookie": f"sessionid={cookie}", **headers}
        connection = connect(
            f"ws://{HOST}:{self.port}/ws/runs/{run.pk}/{query}",
            additional_headers=sent,
            origin=Origin(origin),
            max_size=None,
            open_timeout=20,
        ).__enter__()
        return Page(connection, after or "0-0")


class Page:
    """What a browser has been sent."""

    def __init__(self, connection: ClientConnection, cursor: str) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.cursor = cursor
        self.code: int | None = None

    def read(self, seconds: float) -> bool:
        """Takes one frame; says whether there was one."""
        try:
            frame = json.loads(self.connection.recv(timeout=seconds))
        except TimeoutError:
            return False
        except ConnectionClosed as closed:
            self.code = closed.rcvd.code if closed.rcvd else 1006
            return False
        if frame["type"] == "events":
            self.events += frame["events"]
            self.cursor = frame["cursor"]
        elif frame["type"] == "run":
            self.runs.append(frame["run"])
        return True

    def until(self, done: Callable[[Page], Any], seconds: float = 10) -> Page:
        """Reads until `done(page)`; fails after `seconds`."""
        end = time.monotonic() + seconds
        while not done(self):
            assert time.monotonic() < end, f"{len(self.events)} events, cursor {self.cursor}, closed {self.code}"
            self.read(0.2)
        return self

    def closed(self, seconds: float = 10) -> int:
        """The code that the server closes with."""
        self.until(lambda page: page.code is not None, seconds)
        assert self.code is not None
        return self.code

    @property
    def ids(self) -> list[tuple[int, int]]:
        """Attempt and number of every event, in the order they came."""
        return [(event["attempt"], event["seq"]) for event in self.events]


class Training:
    """Writes events to a file as the engine does, and ships them as the supervisor does."""

    def __init__(self, run: Run, folder: Path, attempt: int = 1) -> None:
        Run.objects.filter(pk=run.pk).update(state="running", attempt=attempt)
        run.refresh_from_db()
        self.path = folder / f"{run.pk}-{attempt}.jsonl"
        self.writer = EventWriter(self.path)
        self.archive, self.wire = Archive(run, self.path), Wire(run.pk, attempt, self.path)
        self.step = 0

    def steps(self, count: int) -> None:
        """Trains for some steps; nothing is shipped yet."""
        for _ in range(count):
            self.step += 1
            self.writer.emit("step", step=self.step, loss=3.0 / self.step, learning_rate=2e-4, gradient_norm=1.0)

    def ship(self, *, wire: bool = True, archive: bool = True) -> None:
        """Ships what has been written, to one of the two or to both."""
        while wire and self.wire.ship():
            pass
        while archive and self.archive.ship():
            pass


def sign_in(user: User) -> str:
    """A new session of the user; gives its cookie."""
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value
