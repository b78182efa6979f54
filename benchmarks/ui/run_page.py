"""The page of a run of 100,000 steps in Chromium: until all charts are drawn, what each chart weighs, how old a live point is."""

from __future__ import annotations

import bisect
import gzip
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from benchmarks.ui import long_run
from benchmarks.ui.measured import Measured, percentile, timed
from benchmarks.ui.rows import bench, running

if TYPE_CHECKING:
    from django.test import Client

    from webapp.runs.models import Run

OPENS = 9
OPEN_MS, PAYLOAD_KB, AGE_SECONDS = 1500.0, 60.0, 1.0
LIVE_STEPS, LIVE_INTERVAL_SECONDS = 60, 0.15
# All charts hold a canvas, and the frame in which they were drawn is over.
DRAWN = """() => new Promise((done) => {
  const look = () => {
    const charts = [...document.querySelectorAll("live-chart")];
    if (charts.length && charts.every((chart) => chart.querySelector("canvas"))) {
      requestAnimationFrame(() => setTimeout(() => done(performance.now())));
    } else requestAnimationFrame(look);
  };
  look();
})"""
WATCH = """() => {
  window.seen = [];
  const readout = document.querySelector('live-chart[metric="loss"] .readout span');
  const parent = readout.parentElement;
  const look = () => window.seen.push([parent.querySelector("span").textContent, Date.now() / 1000]);
  new MutationObserver(look).observe(parent, { childList: true, subtree: true, characterData: true });
}"""


def measure() -> list[Measured]:
    """Fills the database, starts a site's web process and Redis, and measures. The site has been set up."""
    from django.test import Client

    team, user, version, base = bench("long")
    client = Client()
    client.force_login(user)
    run = long_run.record(running(team, user, version, base), keep=False)
    found = [*_server(client, run), *_payloads(client, run)]
    live = running(team, user, version, base)
    with _processes() as url, _browser() as chromium:
        found += _opens(chromium, url, client, f"/runs/{run.pk}/")
        found.append(_age(_signed_in(chromium, url, client), f"{url}/runs/{live.pk}/", live))
    return found


def _server(client: Client, run: Run) -> Iterator[Measured]:
    """What the columns are for: the same answer from the archive's JSON, from the copy on disk, from memory."""
    from webapp.runs.services import points

    def ask() -> None:
        answer = client.get(f"/runs/{run.pk}/series/")
        assert answer.status_code == 200, answer.status_code

    def anew() -> None:
        points.forget()
        ask()

    yield timed("run page: series of 100 000 steps, from the archive", anew, rounds=3, target_ms=None, warm=0)
    points.keep(run)
    yield timed("run page: series, first time in a process", anew, rounds=8, target_ms=None, warm=1)
    yield timed("run page: series, again", ask, rounds=8, target_ms=None, warm=1)


def _payloads(client: Client, run: Run) -> Iterator[Measured]:
    from webapp.runs.services.series import KEYS

    for key in (*KEYS, None):
        answer = client.get(f"/runs/{run.pk}/series/", {"keys": key} if key else {}, headers={"Accept-Encoding": "gzip"})
        size = len(answer.content) / 1000
        shown = len(json.loads(gzip.decompress(answer.content))["x"])
        target = PAYLOAD_KB if key else None
        yield Measured(f"run page: payload, {key or 'all charts in one answer'}", size, size, "kB", target, f"gzipped, {shown} buckets")


@contextmanager
def _processes() -> Iterator[str]:
    """A web process and a Redis of the temporary site, with its files collected."""
    from django.conf import settings

    from webapp.core.redis import server_binary
    from webapp.operate.up.commands import web_process

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "GRAFT_HOSTS": "127.0.0.1,testserver"}
    subprocess.run((sys.executable, "manage.py", "collectstatic", "--noinput", "-v", "0"), env=environment, check=True)
    redis_socket = Path(settings.GRAFT_VAR) / "redis" / "redis.sock"
    redis_socket.parent.mkdir(parents=True, exist_ok=True)
    options = ("--port", "0", "--unixsocket", str(redis_socket), "--dir", str(redis_socket.parent), "--save", "")
    redis = subprocess.Popen((str(server_binary()), *options), stdout=subprocess.DEVNULL)
    web = subprocess.Popen(web_process("127.0.0.1", port).command, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        _until_answered(f"{url}/healthz")
        yield url
    finally:
        for process in (web, redis):
            process.terminate()
            process.wait(20)


def _until_answered(url: str) -> None:
    for _ in range(150):
        try:
            with urlopen(url, timeout=2):  # noqa: S310 - our own address
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


@contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    # Django takes the browser's event loop for that of an asynchronous view.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def _signed_in(chromium: Any, url: str, client: Client) -> Any:
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": url}])
    return context.new_page()


def _opens(chromium: Any, url: str, client: Client, path: str) -> Iterator[Measured]:
    """From the start of the navigation to all charts drawn: by a browser that has seen the page, and by one whose cache is empty."""
    known = _signed_in(chromium, url, client)
    first = _drawn_after(known, url + path)
    seen = [_drawn_after(known, url + path) for _ in range(OPENS)]
    known.context.close()
    empty = []
    for _ in range(OPENS):
        page = _signed_in(chromium, url, client)
        empty.append(_drawn_after(page, url + path))
        page.context.close()
    what = "run page: 100 000 steps, all charts drawn"
    yield Measured(what, statistics.median(seen), percentile(seen, 0.95), "ms", OPEN_MS, f"{OPENS} opens")
    note = f"{OPENS} opens; the very first of the web process {first:.0f} ms"
    yield Measured(f"{what}, empty cache", statistics.median(empty), percentile(empty, 0.95), "ms", OPEN_MS, note)


def _drawn_after(page: Any, url: str) -> float:
    """Milliseconds."""
    page.goto("about:blank")
    page.goto(url, wait_until="commit")
    return float(page.evaluate(DRAWN))


def _age(page: Any, url: str, run: Run) -> Measured:
    """From the moment that the engine writes a step to the moment that its chart shows it, by way of the real ingest, Redis and socket."""
    from jobs.events import EventWriter
    from webapp.runs.ingest import Ingest
    from webapp.runs.supervisor import SHIP_SECONDS

    writer = EventWriter(run.attempt_folder(1) / "events.jsonl")
    ingest = Ingest(run, run.attempt_folder(1) / "events.jsonl")
    told = [(kind, data) for kind, data in long_run.events(1000) if kind in ("plan", "step")]
    written: list[float] = [writer.emit(kind, **data).t for kind, data in told[:20]]  # type: ignore[arg-type]
    ingest.ship()
    page.goto(url)
    page.evaluate(DRAWN)
    page.evaluate(WATCH)
    shipped = time.monotonic()
    for kind, data in told[20 : 20 + LIVE_STEPS]:
        written.append(writer.emit(kind, **data).t)  # type: ignore[arg-type]
        page.wait_for_timeout(1000 * LIVE_INTERVAL_SECONDS)
        if time.monotonic() - shipped >= SHIP_SECONDS:
            shipped = time.monotonic()
            ingest.ship()
    ingest.ship()
    page.wait_for_timeout(1500)
    ingest.close()
    seen = [(int(text.split()[-1].replace("\u202f", "")), at) for text, at in page.evaluate("() => window.seen")]
    steps = [step for step, _ in seen]
    # The first line of the file is the plan, so that step n is event n + 1.
    ages = [seen[bisect.bisect_left(steps, step)][1] - written[step] for step in range(20, 20 + LIVE_STEPS - 1)]
    note = f"{len(ages)} points; the oldest {max(ages):.2f} s"
    return Measured(
        "run page: age of a live point when it is drawn", statistics.median(ages), percentile(ages, 0.95), "s", AGE_SECONDS, note
    )
