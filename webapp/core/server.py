"""How the web server speaks to browsers: as uvicorn does, with patience that ends.

A client that sends its headers byte by byte, or never reads what it asked for, would hold a connection for ever, and there are only so
many. A connection that is closed while its buffer is full stays open until the client reads, so these are aborted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

import h11
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# From the connection, or from the first byte of a further request, to the end of the headers.
HEADER_SECONDS = 15.0
# For so long a client may leave its end of a full buffer as it is.
UNREAD_SECONDS = 30.0
PINGS_PER_SECOND = 20


class _Patient(asyncio.Protocol):
    """Aborts a connection whose client does not read."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _reading_due: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The buffer is full: from now on the client has so long to read some of it."""
        super().pause_writing()
        self._reading_due = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads."""
        self._read()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is waited for."""
        self._read()
        super().connection_lost(exc)

    def _read(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None


class PatientProtocol(_Patient, H11Protocol):
    """HTTP/1.1. Closes a connection whose request does not come in time; bodies are timed by `body_limit`."""

    _headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for the first request."""
        super().connection_made(transport)
        self._headers_due = self.loop.call_later(HEADER_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """The time of a request runs from its first byte, and ends with its headers."""
        if self._headers_due is None and self.conn.their_state is h11.IDLE:
            self._headers_due = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._came()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is waited for."""
        self._came()
        super().connection_lost(exc)

    def _came(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


class PatientSocket(_Patient, WebSocketsSansIOProtocol):
    """WebSockets. Pings are answered here, out of sight of the consumer that counts messages, and into a buffer without end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nobody has pinged yet."""
        super().connection_made(transport)
        self._pings: deque[float] = deque(maxlen=PINGS_PER_SECOND + 1)

    def handle_ping(self) -> None:
        """Answers, unless there are too many, or the answers are not read."""
        self._pings.append(time.monotonic())
        too_many = len(self._pings) > PINGS_PER_SECOND and self._pings[-1] - self._pings[0] < 1.0
        if too_many or self._reading_due is not None:
            self.transport.abort()
        else:
            super().handle_ping()

    async def send(self, message: ASGISendEvent) -> None:
        """As ASGI has it: who sends to a socket that is closed already (by a ping without an answer, too) gets an `OSError`, where uvicorn
        takes it for a mistake of ours.
        """
        await self.writable.wait()
        if self.handshake_complete and self.close_sent:
            raise ClientDisconnected
        await super().send(message)
