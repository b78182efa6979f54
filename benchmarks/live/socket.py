"""A page's socket without the page: it comes back with its cursor as `static/js/live.js` does, and checks that no event is missing."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import time
from array import array
from dataclasses import dataclass, field

# As in static/js/live.js.
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 10.0
_PONG = 0x8A
_TIME = re.compile(rb'"t":([0-9.]+)')
_CURSOR = re.compile(rb'"cursor":"(\d+)-(\d+)"')


@dataclass
class Seen:
    """What all sockets have seen: events, those missing or out of order, ages in seconds of the first and last event of each message while
    `timing`, and how often a socket was closed.
    """

    events: int = 0
    lost: int = 0
    closed: int = 0
    bytes: int = 0
    timing: bool = False
    ages: array[float] = field(default_factory=lambda: array("d"))


class Page(asyncio.Protocol):
    """One socket at a time, opened anew until `stop`. `last` is the number of the last event; `heard_at` when the last events came."""

    def __init__(self, address: tuple[str, int], run_id: str, cookie: str, seen: Seen) -> None:
        self.address, self.run_id, self.cookie, self.seen = address, run_id, cookie, seen
        self.last = 0
        self.heard_at = 0.0
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._over = False

    async def keep_open(self) -> None:
        """Until `stop`: opens, reads, and comes back after a pause that doubles."""
        loop, delay = asyncio.get_running_loop(), FIRST_DELAY_SECONDS
        while not self._over:
            self._buffer, self.is_open, self._ended = bytearray(), False, loop.create_future()
            before = self.last
            try:
                self._transport, _ = await loop.create_connection(lambda: self, *self.address)
                self._transport.write(handshake(self.address, self.run_id, self.cookie, f"1-{self.last}" if self.last else "0-0"))
                await self._ended
                self.seen.closed += 1
            except OSError:
                pass
            delay = FIRST_DELAY_SECONDS if self.last > before else min(2 * delay, LONGEST_DELAY_SECONDS)
            await asyncio.sleep(random.uniform(FIRST_DELAY_SECONDS, max(delay, 2 * FIRST_DELAY_SECONDS)))  # noqa: S311

    def stop(self) -> None:
        """Closes for good."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends this turn of `keep_open`."""
        if not self._ended.done():
            self._ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """The handshake's answer, then frames; those of a server are not masked, nor cut here."""
        self._buffer += data
        if not self.is_open:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._buffer.startswith(b"HTTP/1.1 101"):
                assert self._transport is not None
                self._transport.abort()
                return
            self.is_open = True
            del self._buffer[: end + 4]
        at = 0
        while (frame := _frame(self._buffer, at)) is not None:
            code, start, at = frame
            self._read(code, bytes(self._buffer[start:at]))
        del self._buffer[:at]

    def _read(self, code: int, body: bytes) -> None:
        assert self._transport is not None
        if code == 9:
            self._transport.write(bytes((_PONG, 0x80 | len(body))) + b"\0\0\0\0" + body)
        elif code == 8:
            self._transport.close()
        elif body.startswith(b'{"type":"events"'):
            self._events(body)

    def _events(self, body: bytes) -> None:
        cursor = _CURSOR.search(body, 0, 80)
        assert cursor is not None, body[:80]
        now, count, newest = time.time(), body.count(b'{"attempt":'), int(cursor[2])
        self.seen.events += count
        self.seen.bytes += len(body)
        self.seen.lost += abs(newest - self.last - count)
        self.last, self.heard_at = newest, time.monotonic()
        if self.seen.timing:
            first, last = _TIME.search(body), _TIME.search(body, body.rfind(b'{"attempt":'))
            self.seen.ages.extend(now - float(found[1]) for found in (first, last) if found)


def handshake(address: tuple[str, int], run_id: str, cookie: str, after: str) -> bytes:
    """The request that opens the socket of a run."""
    host = f"{address[0]}:{address[1]}"
    key = base64.b64encode(os.urandom(16)).decode()
    lines = (
        f"GET /ws/runs/{run_id}/?after={after} HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", "Upgrade: websocket",
        "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", f"Cookie: sessionid={cookie}", "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode()


def _frame(buffer: bytearray, at: int) -> tuple[int, int, int] | None:
    """Opcode, start and end of the payload of the frame at `at`; None where it is not whole yet (RFC 6455, 5.2)."""
    if len(buffer) < at + 2:
        return None
    code, size, start = buffer[at] & 0x0F, buffer[at + 1] & 0x7F, at + 2
    if size > 125:
        width = 2 if size == 126 else 8
        if len(buffer) < start + width:
            return None
        size, start = int.from_bytes(buffer[start : start + width], "big"), start + width
    return (code, start, start + size) if len(buffer) >= start + size else None
