"""WebSockets: whose page may open one, who may, and what they may send."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from websockets.exceptions import ConnectionClosed

from tests.attacks.web.impatient import HastyWeb
from tests.flow.site import Site, wait_for
from tests.webapp.cast import make_cast
from tests.webapp.runs.live import HOST, Training, Web, sign_in
from tests.webapp.runs.rows import make_bench
from tests.webapp.test_every_url import Things, make_things
from webapp.accounts.models import Membership
from webapp.asgi import application
from webapp.runs.models import Run
from webapp.runs.routing import websocket_urlpatterns

pytestmark = pytest.mark.django_db(transaction=True)
MEBIBYTE = 2**20


@pytest.fixture
def things(transactional_db: None, settings: Any, tmp_path: Any) -> Things:
    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    return make_things(make_cast())


async def opened(path: str, session: str = "", *, host: bytes = b"localhost:8000", **headers: bytes) -> bool:
    """Whether the site opens a socket; no frame is sent to one that is refused."""
    sent = [(b"host", host), *((name.encode(), value) for name, value in headers.items() if value)]
    sent += [(b"cookie", f"sessionid={session}".encode())] if session else []
    socket = ApplicationCommunicator(
        application, {"type": "websocket", "path": path, "query_string": b"", "headers": sent, "subprotocols": []}
    )
    await socket.send_input({"type": "websocket.connect"})
    answer = await socket.receive_output(timeout=10)
    if answer["type"] == "websocket.accept":
        await socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await socket.wait(timeout=10)
        return True
    assert answer["type"] == "websocket.close"
    assert await socket.receive_nothing(timeout=0.1)
    return False


@pytest.mark.parametrize(
    ("host", "origin", "opens"),
    [
        (b"localhost:8000", b"http://localhost:8000", True),
        (b"LOCALHOST:8000", b"http://Localhost:8000", True),
        (b"localhost:8000", b"https://localhost:8000", True),
        (b"localhost:8000", b"https://trusted.example", True),
        (b"localhost:8000", b"https://a.wild.example", True),
        (b"localhost:8000", b"", False),
        (b"localhost:8000", b"null", False),
        (b"localhost:8000", b"https://evil.example", False),
        (b"localhost:8000", b"https://localhost.evil.example:8000", False),
        (b"localhost:8000", b"https://evil.example/localhost:8000", False),
        (b"localhost:8000", b"http://localhost:8000@evil.example", False),
        (b"localhost:8000", b"http://evil.example#localhost:8000", False),
        # A neighbour on this host: the browser sends it the same cookies.
        (b"localhost:8000", b"http://localhost:9000", False),
        (b"localhost:8000", b"http://localhost", False),
        (b"localhost:8000", b"http://127.0.0.1:8000", False),
        (b"localhost:8000", b"http://trusted.example", False),
        (b"localhost:8000", b"https://wild.example.evil.example", False),
        (b"localhost:8000", b"https://evilwild.example", False),
        (b"localhost:8000", b"http://localhost:8000, https://evil.example", False),
        (b"localhost:8000", b"file://", False),
        (b"localhost:8000", b"http://[::1", False),
        (b"localhost:8000", b"\xff\xfe", False),
        # A name of somebody else's that leads here.
        (b"evil.example", b"http://evil.example", False),
        (b"evil.example:8000", b"http://evil.example:8000", False),
        (b"", b"http://", False),
    ],
)
async def test_only_our_own_pages_open_a_socket(things: Things, settings: Any, host: bytes, origin: bytes, opens: bool) -> None:
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://trusted.example", "https://*.wild.example"]
    session = await sync_to_async(sign_in)(things.cast.alice)
    assert await opened(f"/ws/runs/{things.run.pk}/", session, host=host, origin=origin) == opens


async def test_two_origins_or_hosts_are_none(things: Things) -> None:
    session = await sync_to_async(sign_in)(things.cast.alice)
    scope = {"type": "websocket", "path": f"/ws/runs/{things.run.pk}/", "query_string": b"", "subprotocols": []}
    for twice in ((b"origin", b"http://localhost:8000"), (b"host", b"localhost:8000")):
        headers = [(b"host", b"localhost:8000"), (b"origin", b"http://localhost:8000"), twice, (b"cookie", f"sessionid={session}".encode())]
        socket = ApplicationCommunicator(application, {**scope, "headers": headers})
        await socket.send_input({"type": "websocket.connect"})
        assert (await socket.receive_output(timeout=10))["type"] == "websocket.close"


@pytest.mark.parametrize("person", [None, "forged", "charlie", "ada", "removed", "vera"])
async def test_who_does_not_belong_opens_no_socket(things: Things, person: str | None) -> None:
    """Every route of sockets, and paths that are none."""
    cast = things.cast
    user = {"removed": cast.bob}.get(person or "") or getattr(cast, person or "", None)
    session = await sync_to_async(sign_in)(user) if user else "forged" if person else ""
    if person == "removed":
        await sync_to_async(Membership.objects.filter(user=cast.bob).delete)()
    # One route, and the one that refuses all else: whoever adds another must add it here.
    assert len(websocket_urlpatterns) == 2
    origin = b"http://localhost:8000"
    assert await opened(f"/ws/runs/{things.run.pk}/", session, origin=origin) == (person == "vera")
    there = f"/ws/runs/{things.run.pk}"
    for path in ("/", "/ws/", f"/ws/runs/{uuid.uuid4()}/", there, f"{there}/x/", f"{there}/../", "/login/"):
        assert not await opened(path, session, origin=origin), path


# -- frames, on a real server ------------------------------------------------------------------------------------------


@pytest.fixture
def run(site: Site) -> Run:
    return make_bench().launch()


def memory(web: Web) -> int:
    """Bytes that the web process holds."""
    return int(psutil.Process(web.site.processes["web"].pid).memory_info().rss)


def test_a_large_frame_is_not_taken(web: Web, run: Run) -> None:
    cookie = sign_in(run.created_by)
    before = memory(web)
    page = web.page(run, cookie).until(lambda page: page.runs)
    with contextlib.suppress(ConnectionClosed):
        page.connection.send("x" * (20 * MEBIBYTE))
    assert page.closed() in (1009, 1006)

    page = web.page(run, cookie).until(lambda page: page.runs)
    with contextlib.suppress(ConnectionClosed):
        page.connection.send("x" * 1024 for _ in range(20 * 1024))
    assert page.closed() in (1009, 1006, 4429)
    assert memory(web) - before < 10 * MEBIBYTE
    web.page(run, cookie).until(lambda page: page.runs)


def test_many_small_frames_close_the_socket_and_no_other(web: Web, run: Run) -> None:
    cookie = sign_in(run.created_by)
    other = web.page(run, cookie).until(lambda page: page.runs)
    page = web.page(run, cookie).until(lambda page: page.runs)
    sent = 0
    with contextlib.suppress(ConnectionClosed):
        for _ in range(10_000):
            page.connection.send("x")
            sent += 1
    assert page.closed() == 4429
    assert sent < 10_000 or page.code == 4429
    assert other.read(6)
    assert other.code is None


def test_pings_are_answered_and_a_flood_of_them_is_not(web: Web, run: Run) -> None:
    cookie = sign_in(run.created_by)
    before = memory(web)
    page = web.page(run, cookie).until(lambda page: page.runs)
    assert page.connection.ping(b"there?").wait(5)
    with contextlib.suppress(ConnectionClosed):
        for _ in range(50_000):
            page.connection.ping()
    assert page.closed() == 1006
    assert memory(web) - before < 10 * MEBIBYTE


def test_compressed_frames_are_not_spoken(web: Web, run: Run) -> None:
    page = web.page(run, sign_in(run.created_by)).until(lambda page: page.runs)
    assert page.connection.protocol.extensions == []
    with contextlib.suppress(ConnectionClosed):
        # A text of one letter, masked, with the bit that says it is compressed.
        page.connection.socket.sendall(b"\xc1\x81\x00\x00\x00\x00x")
    assert page.closed() in (1002, 1006)


@pytest.fixture
def deaf(hasty: HastyWeb, run: Run) -> Iterator[socket.socket]:
    """A client that opens the socket of the run, and never reads again."""
    cookie = sign_in(run.created_by)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((HOST, hasty.port))
        head = [f"GET /ws/runs/{run.pk}/ HTTP/1.1", f"Host: {HOST}:{hasty.port}", f"Origin: http://{HOST}:{hasty.port}"]
        upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        lines = [*head, f"Cookie: sessionid={cookie}", *upgrade, "", ""]
        client.sendall("\r\n".join(lines).encode())
        assert client.recv(12) == b"HTTP/1.1 101"
        yield client


def connected(web: Web, client: socket.socket) -> bool:
    process = psutil.Process(web.site.processes["web"].pid)
    return any(each.raddr and each.raddr.port == client.getsockname()[1] for each in process.net_connections("tcp"))


def test_a_reader_that_never_reads_is_let_go_and_costs_no_memory(hasty: HastyWeb, run: Run, deaf: socket.socket, tmp_path: Any) -> None:
    training = Training(run, tmp_path)
    before = memory(hasty)
    training.steps(40_000)
    training.ship(wire=False)
    reading = hasty.page(run, sign_in(run.created_by)).until(lambda page: page.cursor == "1-40000", 30)
    assert len(reading.ids) == 40_000

    wait_for(lambda: not connected(hasty, deaf), 20)
    assert memory(hasty) - before < 30 * MEBIBYTE
    assert hasty.site.processes["web"].poll() is None
