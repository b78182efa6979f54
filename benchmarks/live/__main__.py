"""`python -m benchmarks.live`: 1,000 sockets on 20 runs of 100 points a second at one real web process, with a real Redis.

Prints lost points, the server's processor and memory, ages of points; then what readers cost that never read, and how soon all sockets are
back after a restart of the web process. Ends with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from benchmarks.live.served import Served, served
from benchmarks.live.socket import Page, Seen, handshake
from benchmarks.ui.measured import percentile
from benchmarks.ui.site import temporary_site

SOCKETS_OF_A_USER = 10
UNREAD = 10
# Longer than the kernel takes to fill the server's end of a connection, and the server then waits for a reader.
UNREAD_SECONDS = 90
BACK_SECONDS = 15.0
SETTLE_SECONDS = 5
PATIENCE_SECONDS = 60


def main() -> int:
    """Brings the site up, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100.0, help="points a second of each run")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the steady part")
    asked = parser.parse_args()
    with temporary_site():
        from benchmarks.live.rows import rows

        runs, cookies = rows(asked.runs, -(-asked.sockets // SOCKETS_OF_A_USER) + 1)
        with served() as site:
            return asyncio.run(_measure(site, runs, cookies, asked))


@contextmanager
def _written(rate: float, runs: list[str]) -> Iterator[None]:
    command = (sys.executable, "-m", "benchmarks.live.writer", str(rate), *runs)
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        yield
    finally:
        writer.terminate()
        print(f"written: {writer.communicate(timeout=180)[0].strip()} points a second and run")


async def _measure(site: Served, runs: list[str], cookies: list[str], asked: Any) -> int:
    seen = Seen()
    pages = [Page(site.address, runs[number % len(runs)], cookies[number // SOCKETS_OF_A_USER], seen) for number in range(asked.sockets)]
    clock = asyncio.get_running_loop().time
    start = clock()
    tasks = [asyncio.create_task(page.keep_open()) for page in pages]
    await _until(lambda: all(page.is_open for page in pages), "open")
    print(f"{len(pages)} sockets on {len(runs)} runs: all open after {clock() - start:.1f} s")
    with _written(asked.rate, runs):
        await _until_heard(pages, clock())
        await asyncio.sleep(SETTLE_SECONDS)
        kept = await _steady(site, seen, asked.seconds)
        await _unread(site, runs, cookies[-1], UNREAD_SECONDS)
        back = await _restarted(site, pages)
    for page in pages:
        page.stop()
    await asyncio.gather(*tasks)
    print(f"lost or doubled over everything: {seen.lost} of {seen.events}")
    return 0 if kept and seen.lost == 0 and back <= BACK_SECONDS else 1


async def _until(holds: Callable[[], bool], what: str) -> None:
    """Waits. Raises `TimeoutError`."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise TimeoutError(f"within {PATIENCE_SECONDS} s not all sockets {what}") from None


async def _until_heard(pages: list[Page], since: float) -> float:
    """Seconds from `since` (the loop's clock) until every page has had events since then."""
    await _until(lambda: all(page.heard_at > since for page in pages), "hear")
    return max(page.heard_at for page in pages) - since


async def _steady(site: Served, seen: Seen, seconds: float) -> bool:
    process = psutil.Process(site.web.pid)
    before, events, size, closed = process.cpu_times(), seen.events, seen.bytes, seen.closed
    seen.timing = True
    await asyncio.sleep(seconds)
    seen.timing = False
    after = process.cpu_times()
    cpu = (after.user + after.system - before.user - before.system) / seconds
    ages = sorted(seen.ages)
    p50, p99 = (percentile(ages, share) for share in (0.5, 0.99))
    print(
        f"steady {seconds:g} s: {(seen.events - events) / seconds:.0f} points/s and {(seen.bytes - size) / seconds / 1e6:.1f} MB/s", end=" "
    )
    print(f"delivered, lost {seen.lost}, sockets closed {seen.closed - closed}; web process {100 * cpu:.0f} % of a core,", end=" ")
    print(f"{process.memory_info().rss / 1e6:.0f} MB; age of a point p50 {p50:.2f} s, p99 {p99:.2f} s")
    return seen.closed == closed


async def _unread(site: Served, runs: list[str], cookie: str, seconds: int) -> None:
    """Readers that never read: how much the web process grows meanwhile."""
    process = psutil.Process(site.web.pid)
    before = process.memory_info().rss
    clients = []
    for number in range(UNREAD):
        client = socket.socket()
        # What the kernel holds for a reader is not the web process's memory: little of it, so that the server feels it soon.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(site.address)
        client.sendall(handshake(site.address, runs[number % len(runs)], cookie, "0-0"))
        clients.append(client)
    ports = {client.getsockname()[1] for client in clients}
    peak = before
    for _ in range(seconds):
        await asyncio.sleep(1)
        peak = max(peak, process.memory_info().rss)
    left = sum(bool(one.raddr) and one.raddr.port in ports for one in process.net_connections("tcp"))
    for client in clients:
        client.close()
    print(f"{UNREAD} readers that never read: the web process grows by at most {(peak - before) / 1e6:.1f} MB;", end=" ")
    print(f"after {seconds} s it keeps {left} of them open")


async def _restarted(site: Served, pages: list[Page]) -> float:
    clock = asyncio.get_running_loop().time
    start = clock()
    await asyncio.to_thread(site.stop)
    stopped = clock()
    await asyncio.to_thread(site.start)
    up = clock()
    heard = await _until_heard(pages, stopped)
    print(
        f"restart: stopped in {stopped - start:.1f} s, answers after {up - stopped:.1f} s more; all {len(pages)} sockets hear again",
        end=" ",
    )
    print(f"{heard - (up - stopped):.1f} s after it answers, {heard:.1f} s after it stopped")
    return heard


if __name__ == "__main__":
    sys.exit(main())
