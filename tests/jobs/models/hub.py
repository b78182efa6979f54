"""A small Hugging Face Hub on loopback: the few endpoints that the client uses, over real HTTP, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LFS_BYTES = 10_000


@dataclass
class Hub:
    """`repositories`: name -> folder; the commit is the sha1 of the name. `cut`: how many answers are still to break off half-way.

    `requests` holds (method, path, range) of everything that was asked; `token` is required for the repositories in `private`.
    """

    repositories: dict[str, Path]
    branches: tuple[str, ...] = ("main", "v1.0")
    private: frozenset[str] = frozenset()
    token: str = ""
    cut: int = 0
    lie_about: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def commit(self, name: str) -> str:
        return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()

    def siblings(self, name: str) -> list[dict[str, Any]]:
        return [self._sibling(path) for path in sorted(self.repositories[name].iterdir())]

    def _sibling(self, path: Path) -> dict[str, Any]:
        body = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
        entry: dict[str, Any] = {"rfilename": path.name, "size": len(body), "blobId": blob}
        if len(body) > LFS_BYTES:
            sha256 = hashlib.sha256(body).hexdigest() if path.name != self.lie_about else "0" * 64
            entry["lfs"] = {"sha256": sha256, "size": len(body), "pointerSize": 134}
        return entry


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Runs the hub until the block ends."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: tests read `Hub.requests`."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        if found := re.fullmatch(r"/api/models/(.+?)(?:/revision/([^/?]+))?(?:\?.*)?", self.path):
            self._model(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/([^/?]+)", self.path):
            self._file(found[1], found[2], found[3])
        else:
            self._error(404, "EntryNotFound")

    def _known(self, name: str, revision: str) -> bool:
        allowed = name not in self.hub.private or self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if name not in self.hub.repositories or not allowed:
            self._error(401, "RepoNotFound")
        elif revision not in (*self.hub.branches, self.hub.commit(name)):
            self._error(404, "RevisionNotFound")
        else:
            return True
        return False

    def _model(self, name: str, revision: str) -> None:
        if self._known(name, revision):
            card = {"license": "apache-2.0"}
            body = {"id": name, "sha": self.hub.commit(name), "siblings": self.hub.siblings(name), "cardData": card, "tags": []}
            self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str) -> None:
        path = self.hub.repositories.get(name, Path()) / file
        if not self._known(name, revision):
            return
        if not path.is_file():
            self._error(404, "EntryNotFound")
            return
        body = path.read_bytes()
        entry = next(item for item in self.hub.siblings(name) if item["rfilename"] == file)
        etag = entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]
        headers = {"X-Repo-Commit": self.hub.commit(name), "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"X-Linked-Size": str(len(body)), "X-Linked-Etag": f'"{etag}"'}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else 0
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._send(206 if wanted else 200, body[start:], headers, may_cut="lfs" in entry)

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, may_cut: bool = False) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if may_cut and self.hub.cut:
            self.hub.cut -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(body)
