"""Files over HTTP: whole, by Range, resumable (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.http import content_disposition_header

PIECE_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


@dataclass(frozen=True)
class Slice:
    """A part of a file on disk (`offset`, `bytes`) that is offered under `name`; its content never changes and has this SHA-256."""

    path: Path
    offset: int
    bytes: int
    sha256: str
    name: str
    content_type: str = "application/octet-stream"

    @property
    def etag(self) -> str:
        """A strong validator."""
        return f'"{self.sha256}"'


def file_response(request: HttpRequest, file: Slice) -> HttpResponseBase:
    """Answers GET and HEAD for a slice: 200, 206 for one range, 304 and 416; always as an attachment. Raises `Http404`.

    Several ranges in one request are answered with the whole, as the standard allows.
    """
    headers = {
        "ETag": file.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Type": file.content_type,
        "Content-Disposition": content_disposition_header(as_attachment=True, filename=file.name) or "attachment",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
    }
    if not file.path.is_file() or file.offset + file.bytes > file.path.stat().st_size:
        raise Http404("The file is no longer there.")
    if file.etag in (tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")):
        return HttpResponse(status=304, headers={"ETag": file.etag})
    first, last, status = 0, file.bytes - 1, 200
    asked = _range(request, file)
    if asked is not None:
        first, last = asked
        if first > last:
            return HttpResponse(status=416, headers={"Content-Range": f"bytes */{file.bytes}", "Accept-Ranges": "bytes"})
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{file.bytes}"
    headers["Content-Length"] = str(last - first + 1)
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    return StreamingHttpResponse(_pieces(file.path, file.offset + first, last - first + 1), status=status, headers=headers)


def _range(request: HttpRequest, file: Slice) -> tuple[int, int] | None:
    """First and last byte that are asked for; an empty pair (1, 0) where the file has none of them; None for the whole."""
    match = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if match is None or match[0] == "bytes=-" or request.headers.get("If-Range", file.etag) != file.etag:
        return None
    start, end = match.groups()
    if not start:
        return (max(0, file.bytes - int(end)), file.bytes - 1) if int(end) else (1, 0)
    last = min(int(end), file.bytes - 1) if end else file.bytes - 1
    if end and int(end) < int(start):
        return None
    return (int(start), last) if int(start) < file.bytes else (1, 0)


async def _pieces(path: Path, offset: int, length: int) -> AsyncIterator[bytes]:
    """The bytes, read in another thread, so that a slow disk holds up nobody; a client that goes away closes the file."""
    handle = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while length:
            piece = await asyncio.to_thread(os.pread, handle, min(PIECE_BYTES, length), offset)
            if not piece:
                return
            yield piece
            offset += len(piece)
            length -= len(piece)
    finally:
        os.close(handle)
