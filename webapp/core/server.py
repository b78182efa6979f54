"""How the web server speaks HTTP/1.1: as uvicorn does, with patience that ends.

A client that sends its headers byte by byte, or never reads its answer, would hold a connection for ever, and there are only so many.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the connection, or from the first byte of a further request, to the end of the headers.
HEADER_SECONDS = 15.0
# For so long a client may leave its end of a full buffer as it is.
UNREAD_SECONDS = 60.0


class PatientProtocol(H11Protocol):
    """Closes a connection whose request does not come, or whose answer is not taken, in time. Bodies are timed by `body_limit`."""

    _headers_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None

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
            self._come()

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
        self._come()
        self._read()
        super().connection_lost(exc)

    def _come(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _read(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None
