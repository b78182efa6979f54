"""Addresses that people type for the site to call: nothing on this host or in its network hears of it, whatever the address looks like."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator

import pytest
from django.urls import reverse

from tests.attacks.web.state import changed, state
from tests.webapp.cast import LATER, Cast
from tests.webapp.notices.receiver import Receiver, receiving
from tests.webapp.test_every_url import Things
from webapp.catalog.models import BaseModel
from webapp.core.outbound import NotCalled, is_global, post
from webapp.notices.models import Delivery, Webhook
from webapp.notices.services.deliver import deliver
from webapp.settings.env import ENV


class Ear:
    """Listens on every address of this machine, and counts who comes."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port: int = self.socket.getsockname()[1]
        self.heard = 0
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.heard += 1
            client.close()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)


@pytest.fixture
def ear() -> Iterator[Ear]:
    listening = Ear()
    yield listening
    listening.close()


# Ways to write this machine, and the address where clouds keep a machine's keys.
HERE = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "127.255.255.254",
    "0",
    "0.0.0.0",  # noqa: S104 - nobody listens on it
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[::ffff:0:127.0.0.1]",
    "[fe80::1%25lo]",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "169.254.169.254",
    "0xA9FEA9FE",
    "2852039166",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "168.63.129.16",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
]


def test_nobody_here_is_called_however_the_address_is_written(ear: Ear) -> None:
    for host in HERE:
        for path in ("/", "/latest/meta-data/iam/"):
            with pytest.raises(NotCalled):
                post(f"https://{host}:{ear.port}{path}", b"{}", {})
    assert ear.heard == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "gopher://127.0.0.1:6379/_FLUSHALL", "file:///etc/passwd", "ftp://example.com/", "dict://127.0.0.1:11211/",
        "//example.com/", "https://user:word@example.com/", "https://example.com@127.0.0.1/", "https://127.0.0.1\\@example.com/", "https://example.com#@127.0.0.1/",
        "https://127.0.0.1#.example.com/", "https://127.0.0.1/", "https://[::1]/", "https://example.com:0/", "https://example.com:99999/", "https://",
        "https:///x", "https://[::1", "javascript:alert(1)", "https://" + "a" * 600 + ".example/", "",
    ],
)  # fmt: skip
def test_a_webhook_elsewhere_is_not_taken(url: str, cast: Cast) -> None:
    before = state()
    answer = cast.client(cast.alice).post(reverse("notices:add-webhook", args=["night"]), {"url": url, "ended": "on"})
    assert answer.status_code == 422
    assert changed(before) == []


def test_a_webhook_that_leads_here_later_is_not_called(things: Things, ear: Ear) -> None:
    """A name that had another address when it was added: at each delivery it is asked anew, and its log says nothing of who answers."""
    for url in (f"https://localhost:{ear.port}/", f"https://0x7f000001:{ear.port}/", f"https://[::ffff:127.0.0.1]:{ear.port}/"):
        webhook = Webhook.objects.create(team=things.cast.team, url=url)
        delivery = Delivery.objects.create(webhook=webhook, subject="test", body="{}", next_at=LATER)
        Delivery.objects.filter(pk=delivery.pk).update(next_at="2020-01-01T00:00Z")
        deliver(delivery.pk)
        delivery.refresh_from_db()
        assert (delivery.state, delivery.status_code) == ("waiting", None)
        assert "private network" in delivery.answer
    assert ear.heard == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_here_is_not_followed(status: int, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "outbound_hosts", "127.0.0.1")
    with receiving() as server:
        receiver: Receiver = server
        receiver.status = status
        receiver.headers = {"Location": f"http://127.0.0.1:{ear.port}/"}
        answer = post(receiver.url, b"{}", {})
    assert (answer.status, len(receiver.calls), ear.heard) == (status, 1, 0)


def test_an_address_within_an_address_is_looked_at() -> None:
    for inner, expected in (("127.0.0.1", False), ("169.254.169.254", False), ("10.0.0.1", False), ("1.1.1.1", True)):
        number = int(ipaddress.IPv4Address(inner))
        forms = [
            ipaddress.IPv6Address((0xFFFF << 32) | number),
            ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
            ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ]
        assert [is_global(form) for form in forms] == [expected] * 3, inner
    # The prefixes of a network's own translation, and tunnels out of use, lead who knows where.
    for odd in ("64:ff9b:1::7f00:1", "::7f00:1", "::ffff:0:7f00:1", "fec0::1", "fe80::5efe:7f00:1", "100::1", "3fff::1", "5f00::1"):
        assert not is_global(ipaddress.ip_address(odd)), odd


def test_the_hub_is_the_administrators_and_a_repository_is_a_name(cast: Cast) -> None:
    client = cast.client(cast.alice)
    url = reverse("catalog:add", args=["night", "hub"])
    before = state()
    odd = [
        "https://evil.example/a/b",
        "//evil.example/a",
        "../../a/b",
        "a/../../b",
        "a/b/../../c",
        "a/b?x=1",
        "a/b#c",
        "a b/c",
        "a/b\nHost: x",
        "@evil/a",
    ]
    for repository in odd:
        assert client.post(url, {"repository": repository}).status_code == 422, repository
    assert changed(before) == []
    endpoint = {
        "endpoint": "http://169.254.169.254",
        "hub_endpoint": "http://127.0.0.1",
        "endpoint_url": "http://127.0.0.1",
        "token": "hf_x",
    }
    assert client.post(url, {"repository": "a/b", **endpoint}).status_code == 302
    model = BaseModel.objects.get()
    assert (model.repository, model.source) == ("a/b", "hub")
    assert not [value for value in vars(model).values() if "127.0.0.1" in str(value) or "169.254" in str(value) or "hf_x" in str(value)]
    assert ENV.hub_endpoint == "https://huggingface.co"
