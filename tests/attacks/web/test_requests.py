"""Requests that are too large, too slow, too many or ambiguous, on a real server."""

from __future__ import annotations

import asyncio
import base64
import http.client
import socket
import time

import psutil
import pytest
from django.contrib.sessions.models import Session

from tests.attacks.web.impatient import HastyWeb
from tests.flow.site import Site, wait_for
from tests.webapp.cast import LATER, Cast, make_cast
from tests.webapp.runs.live import HOST, Web, sign_in
from webapp.catalog.models import BaseModel
from webapp.core.body_limit import BodyLimit, Message, Receive, Scope, Send
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.runs.models import Artifact, Run
from webapp.settings.env import ENV

pytestmark = pytest.mark.django_db(transaction=True)
MEBIBYTE = 2**20


def closed_after(client: socket.socket, line: bytes, every: float) -> float:
    """Sends `line` byte by byte; after how many seconds the server has closed."""
    began = time.monotonic()
    client.settimeout(every)
    for byte in line * 1000:
        try:
            client.sendall(bytes([byte]))
            if client.recv(65536) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
        if time.monotonic() - began > 20:
            break
    return time.monotonic() - began


def test_slow_clients_are_let_go_and_others_served(hasty: HastyWeb) -> None:
    """Headers byte by byte, on a new connection and on a kept one; a body byte by byte; a request that never comes."""
    silent = hasty.connect()
    with hasty.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        assert 0.8 < closed_after(client, b"X-Slow: y\r\n", 0.1) < 5
    with hasty.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert closed_after(client, b"GET /", 0.1) < 5
    with hasty.connect() as client:
        client.sendall(b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        began = time.monotonic()
        client.settimeout(0.1)
        answer = b""
        while not answer and time.monotonic() - began < 10:
            client.sendall(b"x")
            try:
                answer = client.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
    silent.settimeout(5)
    assert silent.recv(1) == b""
    silent.close()
    assert hasty.say(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
    wait_for(lambda: hasty.connections == 0, 10)


def test_an_answer_that_nobody_reads_is_not_kept(hasty: HastyWeb) -> None:
    cast = make_cast()
    run = Run.objects.create(
        team=cast.team, name="large", created_by=cast.alice, method="lora", spec={}, state="succeeded", attempt=1, lease_expires_at=LATER,
        queued_at=LATER, dataset_version=_version(cast), base_model=_model(cast),
    )  # fmt: skip
    folder = run.attempt_folder(1) / "artifacts"
    folder.mkdir(parents=True)
    with (folder / "large.zip").open("wb") as file:
        file.truncate(64 * MEBIBYTE)
    artifact = Artifact.objects.create(
        run=run, attempt=1, kind="adapter", name="large.zip", path="artifacts/large.zip", bytes=64 * MEBIBYTE, sha256="1" * 64, files=[]
    )
    cookie = sign_in(cast.alice)
    # What the first request loads is not the answer's.
    hasty.say(f"GET /artifacts/{artifact.pk}/sha256/ HTTP/1.1\r\nHost: localhost\r\nCookie: sessionid={cookie}\r\n\r\n".encode())
    process = psutil.Process(hasty.site.processes["web"].pid)
    before = process.memory_info().rss
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((HOST, hasty.port))
        client.sendall(f"GET /artifacts/{artifact.pk}/download/ HTTP/1.1\r\nHost: localhost\r\nCookie: sessionid={cookie}\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 200"
        wait_for(lambda: hasty.connections == 0, 15)
    assert process.memory_info().rss - before < 20 * MEBIBYTE
    assert not [file for file in process.open_files() if file.path.endswith("large.zip")]


def _version(cast: Cast) -> DatasetVersion:
    dataset = Dataset.objects.create(team=cast.team, name="Tickets", created_by=cast.alice)
    upload = Upload.objects.create(team=cast.team, created_by=cast.alice, filename="a", bytes_total=1, expires_at=LATER)
    return DatasetVersion.objects.create(dataset=dataset, number=1, state="ready", train_upload=upload, created_by=cast.alice, manifest={})


def _model(cast: Cast) -> BaseModel:
    return BaseModel.objects.create(team=cast.team, name="Tiny", source="hub", repository="a/tiny", state="ready", created_by=cast.alice)


# More than a request needs: refused by the server (what it has not read may overtake its answer), or by a page where it came in one piece.
CUT = 0
# What is sent, and the status of the answer.
ODD_REQUESTS = [
    # Two lengths, or a length and chunks: who stands before us may have read another body than we do.
    (b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    (b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello", 400),
    (b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"GET /login/ HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
    (b"GET /login/ HTTP/1.1\r\n\r\n", 400),
    (b"GET /login/ HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    (b"GET /login/ HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\x00\r\n\r\n", 400),
    (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", CUT),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", CUT),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", CUT),
    (b"TRACE /login/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET http://evil.example/login/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET //evil.example/%2e%2e HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
]


def test_a_request_that_can_be_read_in_two_ways_is_not_read(hasty: HastyWeb) -> None:
    for request, status in ODD_REQUESTS:
        answer = hasty.say(request)
        expected = (b"", b"302", b"400", b"404") if status == CUT else (b"%d" % status,)
        assert answer[9:12] in expected, (request[:80], answer[:80])
        assert answer.count(b"HTTP/1.1 ") <= 1, request[:80]
        assert b"evil.example" not in answer
    for path in (
        "/static/../manage.py",
        "/static/..%2fmanage.py",
        "/static/%2e%2e/manage.py",
        "/static/....//manage.py",
        "/static//etc/passwd",
    ):
        answer = hasty.say(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404 "), path
        assert b"DJANGO_SETTINGS_MODULE" not in answer


# -- bodies ------------------------------------------------------------------------------------------------------------


def part(web: Web, upload: Upload, cookie: str, size: int) -> int:
    """The status of a part that declares `size` bytes; not one of them is sent."""
    connection = http.client.HTTPConnection(HOST, web.port, timeout=10)
    headers = {"Cookie": f"sessionid={cookie}", "Content-Length": str(size), "Content-Type": "application/offset+octet-stream"}
    connection.putrequest("PATCH", f"/uploads/{upload.pk}")
    for name, value in {**headers, "Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Expect": "100-continue"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.sock.settimeout(5)
    line = connection.sock.recv(12)
    connection.close()
    return int(line[9:12])


def test_a_large_part_is_taken_of_whom_we_know(web: Web) -> None:
    cast = make_cast()
    upload = Upload.objects.create(team=cast.team, created_by=cast.alice, filename="a.csv", bytes_total=2**30, expires_at=LATER)
    cookie = sign_in(cast.alice)
    ended = sign_in(cast.alice)
    Session.objects.filter(session_key=ended).update(expire_date="2020-01-01T00:00Z")
    large = ENV.request_limit_bytes + 1
    assert part(web, upload, cookie, large) == 100
    assert [part(web, upload, other, large) for other in ("forged", "", ended, base64.b64encode(b"x" * 24).decode())] == [413] * 4
    assert part(web, upload, cookie, ENV.chunk_limit_bytes + 1) == 413
    upload.refresh_from_db()
    assert upload.bytes_received == 0


async def test_all_bodies_together_have_a_limit() -> None:
    """What lies in memory or in temporary files is counted over all requests, and let go of when they end."""
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    limit = BodyLimit(app, held_bytes=3 * MEBIBYTE)

    async def post() -> int:
        sent = [MEBIBYTE]
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": bytes(sent.pop()) if sent else b"", "more_body": False}

        async def send(message: Message) -> None:
            statuses.append(message.get("status", 0))

        await limit({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
        return statuses[0]

    first = [asyncio.create_task(post()) for _ in range(3)]
    await asyncio.sleep(0)
    assert await post() == 503
    release.set()
    assert await asyncio.gather(*first) == [200] * 3
    assert limit.held == 0
    assert await post() == 200


def test_nothing_but_the_web_server_listens_and_that_on_this_machine_alone(site: Site, web: Web) -> None:
    site.start_dispatcher()
    site.start_worker("short", queue="short")
    listening = {
        (name, *each.laddr)
        for name, process in site.processes.items()
        for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in member.net_connections("inet")
        if each.status == psutil.CONN_LISTEN or (each.type == socket.SOCK_DGRAM and each.laddr)
    }
    assert listening == {("web", HOST, web.port)}
    assert site.socket.stat().st_mode & 0o077 == 0 or site.socket.parent.stat().st_mode & 0o077 == 0
