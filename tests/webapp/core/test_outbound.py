"""The client for addresses that people type: where it goes, where it does not, and how little it believes."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.webapp.notices.receiver import Receiver, receiving
from webapp.core import outbound
from webapp.core.outbound import NotCalled, check, is_global, post, resolve
from webapp.settings.env import ENV


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Every name has these addresses; gives the list of names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(outbound.socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.1", "224.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2001:db8::1", "192.0.2.1",
    ],
)  # fmt: skip
def test_private_addresses_in_every_form(address: str) -> None:
    assert not is_global(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"])
def test_global_addresses(address: str) -> None:
    assert is_global(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://example.com/", "begin with https"),
        ("example.com/hook", "begin with https"),
        ("https:///hook", "begin with https"),
        ("https://example.com:99999/", "no valid address"),
        ("https://[::1/", "no valid address"),
        ("https://user:word@example.com/", "no user"),
        ("https://user@example.com/", "no user"),
        ("https://example.com/#part", "no fragment"),
        ("http://example.com/hook", "plain http"),
        ("https://127.0.0.1/hook", "private network"),
        ("https://[::ffff:10.0.0.1]/", "private network"),
        ("https://169.254.169.254/latest/meta-data", "private network"),
        ("https://example.com/" + "a" * 500, "begin with https"),
    ],
)
def test_addresses_that_are_refused_before_anything_is_asked(url: str, words: str) -> None:
    with pytest.raises(NotCalled, match=words):
        check(url)


def test_this_machine_is_not_called_unless_it_is_on_the_list(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotCalled):
        post(receiver.url, b"{}", {})
    with pytest.raises(NotCalled, match="private network"):
        post(receiver.url.replace("http:", "https:"), b"{}", {})
    assert receiver.calls == []
    monkeypatch.setattr(ENV, "outbound_hosts", "other.example, 127.0.0.1")
    assert post(receiver.url, b"{}", {"x-test": "1"}) == outbound.Answer(200, "thanks")
    ((path, headers, body),) = receiver.calls
    assert (path, headers["x-test"], headers["host"], body) == ("/hook", "1", f"127.0.0.1:{receiver.port}", b"{}")


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "1.1.1.1", "10.0.0.1")
    with pytest.raises(NotCalled, match=r"mixed\.example is in a private network"):
        resolve("mixed.example", 443)


def test_the_name_is_resolved_once_and_the_connection_made_to_what_was_found(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(ENV, "outbound_hosts", "hooks.example")
    assert post(f"http://hooks.example:{receiver.port}/hook", b"{}", {}).status == 200
    # The connection itself asks for no name: it is handed the address.
    assert [name for name in asked if name != "127.0.0.1"] == ["hooks.example"]
    assert receiver.calls[0][1]["host"] == f"hooks.example:{receiver.port}"


def test_a_redirect_is_an_answer_and_not_followed(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "outbound_hosts", "127.0.0.1")
    receiver.status, receiver.headers = 302, {"location": "/elsewhere"}
    assert post(receiver.url, b"{}", {}).status == 302
    assert len(receiver.calls) == 1


def test_a_long_answer_is_cut(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "outbound_hosts", "127.0.0.1")
    receiver.body = b"\xffa" * 10**6
    answer = post(receiver.url, b"{}", {})
    assert len(answer.text) == outbound.ANSWER_BYTES


def test_no_proxy_of_the_environment_is_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "outbound_hosts", "127.0.0.1")
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(receiver.url, b"{}", {}).status == 200


def test_silence_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "outbound_hosts", "127.0.0.1")
    monkeypatch.setattr(outbound, "READ_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(NotCalled):
            post(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"{}", {})


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "outbound_hosts", "127.0.0.1")
    with pytest.raises(NotCalled, match="refused"):
        post("http://127.0.0.1:9/", b"{}", {})
