"""Pages that look on while servers are killed: every point once, in order; and nothing more for whom it is no longer for."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from django.db import connection
from websockets.exceptions import WebSocketException

from tests.faults.figures import record
from tests.flow.site import Site
from tests.webapp.runs.live import Page, Training, Web, sign_in
from tests.webapp.runs.rows import Bench
from webapp.accounts.models import Membership, Role, User
from webapp.runs.models import Run

READERS = 10


class Reader(threading.Thread):
    """A page that comes back with its cursor whenever it is thrown out, as the browser's does."""

    def __init__(self, web: Web, run: Run, cookie: str) -> None:
        super().__init__()
        self._web, self._run, self._cookie = web, run, cookie
        self.ids: list[tuple[int, int]] = []
        self.opened = 0
        self.cursor = "0-0"
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            try:
                page = self._web.page(self._run, self._cookie, after=self.cursor)
            except (OSError, WebSocketException):
                time.sleep(0.2)
                continue
            self.opened += 1
            self._read(page)

    def _read(self, page: Page) -> None:
        while page.code is None and not self.over.is_set():
            page.read(0.2)
            self.cursor = page.cursor
        self.ids += page.ids
        page.connection.close()


def test_f34_servers_killed_while_ten_pages_look_on(site: Site, bench: Bench, tmp_path: Path) -> None:
    run, web = bench.launch(), Web(site)
    training, over = Training(run, tmp_path), threading.Event()

    def train() -> None:
        while not over.is_set():
            training.steps(5)
            training.ship()
            time.sleep(0.05)
        training.ship()
        connection.close()

    readers = [Reader(web, run, sign_in(bench.user)) for _ in range(READERS)]
    trainer = threading.Thread(target=train)
    for thread in (trainer, *readers):
        thread.start()
    for victim in ("web", "redis", "web", "redis", "web"):
        time.sleep(2)
        site.kill(victim)
        if victim == "redis":
            time.sleep(0.5)
            site.start_redis()
        else:
            web.start()
    over.set()
    trainer.join()
    last = f"1-{training.step}"
    until = time.monotonic() + 30
    while any(reader.cursor != last for reader in readers) and time.monotonic() < until:
        time.sleep(0.2)
    for reader in readers:
        reader.over.set()
    for reader in readers:
        reader.join()
    expected = [(1, seq) for seq in range(1, training.step + 1)]
    wrong = sum(len(set(expected) ^ set(reader.ids)) + abs(len(reader.ids) - len(set(reader.ids))) for reader in readers)
    wrong += sum(reader.ids != sorted(reader.ids) for reader in readers)
    reconnects = sum(reader.opened for reader in readers) - READERS
    record("points", wrong, f"{READERS} pages, 3 kills of the web server, 2 of Redis, {reconnects} reconnects, {training.step} points each")
    assert wrong == 0
    assert reconnects >= 3 * READERS


def test_f41_who_is_removed_sees_nothing_more(site: Site, bench: Bench, tmp_path: Path) -> None:
    run, web = bench.launch(), Web(site)
    training = Training(run, tmp_path)
    bob = User.objects.create_user("bob")
    membership = Membership.objects.create(team=bench.team, user=bob, role=Role.VIEWER)
    page = web.page(run, sign_in(bob)).until(lambda page: page.runs)
    training.steps(5)
    training.ship()
    page.until(lambda page: len(page.events) == 5)
    membership.delete()
    revoked = time.monotonic()
    while page.code is None and time.monotonic() - revoked < 10:
        training.steps(1)
        training.ship()
        page.read(0.1)
    record("revoked", time.monotonic() - revoked, "removed from the team while points come")
    assert page.code == 4404
    assert time.monotonic() - revoked <= 5
