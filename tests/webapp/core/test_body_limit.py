"""The body limit, in front of a real server."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

import pytest

from tests.webapp.runs.live import HOST, Web
from webapp.core.body_limit import body_limit
from webapp.settings.env import ENV

MEBIBYTE = 2**20


@pytest.mark.parametrize(
    ("method", "path", "cookies", "expected"),
    [
        ("PATCH", "/uploads/6f9619ff-8b86-d011-b42d-00c04fc964ff", b"sessionid=x", ENV.chunk_limit_bytes),
        ("PATCH", "/uploads/6f9619ff-8b86-d011-b42d-00c04fc964ff", b"csrftoken=x", ENV.request_limit_bytes),
        ("POST", "/uploads/6f9619ff-8b86-d011-b42d-00c04fc964ff", b"sessionid=x", ENV.request_limit_bytes),
        ("PATCH", "/uploads/x/y", b"sessionid=x", ENV.request_limit_bytes),
        ("POST", "/login/", b"sessionid=x", ENV.request_limit_bytes),
    ],
)
def test_the_limit_of_a_path(method: str, path: str, cookies: bytes, expected: int) -> None:
    assert body_limit(method, path, cookies) == expected


@pytest.mark.parametrize(
    ("method", "path", "bearer", "expected"),
    [
        ("POST", "/v1/files", b"Bearer graft_x", 512 * MEBIBYTE + 65536),
        ("POST", "/v1/uploads/upload_1/parts", b"Bearer graft_x", 64 * MEBIBYTE + 65536),
        ("POST", "/v1/files", b"", ENV.request_limit_bytes),
        ("POST", "/v1/fine_tuning/jobs", b"Bearer graft_x", ENV.request_limit_bytes),
    ],
)
def test_the_limit_of_the_api(method: str, path: str, bearer: bytes, expected: int) -> None:
    assert body_limit(method, path, b"sessionid=x", bearer) == expected


def test_a_large_file_without_a_token_that_opens_is_refused_in_the_apis_shape(web: Web) -> None:
    connection = http.client.HTTPConnection(HOST, web.port, timeout=10)
    connection.putrequest("POST", "/v1/files")
    connection.putheader("Authorization", "Bearer graft_nonsense")
    connection.putheader("Content-Length", "50000000")
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (413, "application/json")
    error = json.loads(response.read())["error"]
    assert (error["type"], error["param"], "larger than" in error["message"]) == ("invalid_request_error", None, True)
    connection.close()


def test_a_declared_length_is_refused_before_the_body_comes(web: Web) -> None:
    connection = http.client.HTTPConnection(HOST, web.port, timeout=10)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", "5000000000")
    connection.endheaders()

    # Not one byte of the body is ever sent: a server that waited for it would not answer.
    response = connection.getresponse()

    assert response.status == 413
    assert f"larger than the {ENV.request_limit_bytes} bytes" in response.read().decode()
    connection.close()


def test_a_body_without_length_is_counted(web: Web) -> None:
    spooled = set(Path("/tmp").iterdir())
    sent = 0
    with socket.create_connection((HOST, web.port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%s\r\n" % (MEBIBYTE, bytes(MEBIBYTE))
        try:
            for _ in range(64):
                client.sendall(chunk)
                sent += MEBIBYTE
        except OSError:
            pass
        client.settimeout(5)
        try:
            answer = client.recv(4096)
        except OSError:
            answer = b""

    assert sent <= 16 * MEBIBYTE
    assert answer[:13] in (b"HTTP/1.1 413 ", b"")
    assert sum(path.stat().st_size for path in set(Path("/tmp").iterdir()) - spooled if path.is_file()) < 20 * MEBIBYTE


def test_a_client_that_sends_a_little_too_much_reads_why(web: Web) -> None:
    connection = http.client.HTTPConnection(HOST, web.port, timeout=10)
    connection.request("POST", "/", body=bytes(ENV.request_limit_bytes + 1))
    response = connection.getresponse()

    assert response.status == 413
    assert b"larger than" in response.read()


@pytest.mark.parametrize("length", [b"-1", b"abc", b"1e9"])
def test_a_length_that_is_no_number_is_refused(web: Web, length: bytes) -> None:
    with socket.create_connection((HOST, web.port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n\r\n")

        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_a_body_within_the_limit_arrives(web: Web) -> None:
    token = "x" * 32
    connection = http.client.HTTPConnection(HOST, web.port, timeout=10)
    body = f"csrfmiddlewaretoken={token}&rest=".encode()
    body += b"x" * (ENV.request_limit_bytes - 1 - len(body))
    headers = {"Cookie": f"csrftoken={token}", "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/logout/", body=body, headers=headers)

    # Django has read it all, and found the token that it begins with.
    assert connection.getresponse().status == 302
