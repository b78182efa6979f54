"""The one client by which the site calls addresses that people have typed: a request goes where its checks have looked, and nowhere else.

A name is resolved once, and every address that it has must be a global one; the connection is made to the address that was checked, under
the name (Host, TLS certificate). No redirect is followed, no proxy and no cookie of the environment is used; time and size are bounded.
Hosts of private networks are called where GRAFT_OUTBOUND_HOSTS names them, and those alone by plain http.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx
from django.utils.translation import gettext as _

from webapp.settings.env import ENV

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
TOTAL_SECONDS = 20.0
ANSWER_BYTES = 16 * 1024
URL_LENGTH = 500

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# All that is given out of IPv6 to be reached from everywhere; the rest is translation, tunnels and what a network keeps for itself.
_UNICAST = ipaddress.ip_network("2000::/3")
# Within the open internet's numbers, and not in it: examples (RFC 9637), and where a machine of one cloud finds its host.
_NEVER = (ipaddress.ip_network("3fff::/20"), ipaddress.ip_network("168.63.129.16/32"))


class NotCalled(Exception):
    """The address may not be called, or gave no answer; the words say why."""


@dataclass(frozen=True)
class Answer:
    """What came back: the HTTP status, and the beginning of the body as text."""

    status: int
    text: str


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Posts once. Raises `NotCalled` for an address that is not allowed, and where there is no answer in time."""
    parts = check(url)
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    address = resolve(host, port)
    shown = f"[{address}]" if address.version == 6 else str(address)
    pinned = httpx.URL(url).copy_with(host=shown)
    name = parts.netloc.rpartition("@")[2]
    limits = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    try:
        with (
            httpx.Client(verify=ssl.create_default_context(), trust_env=False, follow_redirects=False, timeout=limits) as client,
            client.stream(
                "POST", pinned, content=body, headers={**headers, "Host": name}, extensions={"sni_hostname": host.encode("idna").decode()}
            ) as response,
        ):
            return Answer(response.status_code, _beginning(response))
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as failure:
        raise NotCalled(str(failure) or type(failure).__name__) from failure


def check(url: str) -> SplitResult:
    """The parts of an address that may be called as far as it says itself; its name is not resolved. Raises `NotCalled`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NotCalled(_("It is no valid address.")) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > URL_LENGTH or port == 0:
        raise NotCalled(_("It must begin with https:// and name a host."))
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise NotCalled(_("It must hold no user, no password and no fragment (#)."))
    if parts.scheme == "http" and not _listed(parts.hostname):
        raise NotCalled(
            _("It must begin with https://. An administrator of the site can allow plain http for a host (GRAFT_OUTBOUND_HOSTS).")
        )
    try:
        literal = ipaddress.ip_address(parts.hostname)
    except ValueError:
        return parts
    _allow(parts.hostname, literal)
    return parts


def resolve(host: str, port: int) -> Address:
    """The address to connect to. Raises `NotCalled` where the name has none, or any that is not allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failure:
        raise NotCalled(_("The name %(host)s cannot be resolved (%(reason)s).") % {"host": host, "reason": failure}) from failure
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        _allow(host, address)
    return addresses[0]


def is_global(address: Address) -> bool:
    """Whether an address is one of the open internet, looked at through every form that carries an IPv4 address within an IPv6 one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_global(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner:
            return is_global(inner)
        if address not in _UNICAST:
            return False
    if any(address in network for network in _NEVER):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _allow(host: str, address: Address) -> None:
    if not (is_global(address) or _listed(host)):
        words = _("%(host)s is in a private network. An administrator of the site can allow it (GRAFT_OUTBOUND_HOSTS).")
        raise NotCalled(words % {"host": host})


def _listed(host: str) -> bool:
    return host.lower() in {name.lower() for name in ENV.split(ENV.outbound_hosts)}


def _beginning(response: httpx.Response) -> str:
    """The first bytes of the body as they came, unpacked by nobody. Raises `NotCalled` where even they take too long."""
    until, body = time.monotonic() + TOTAL_SECONDS, b""
    for piece in response.iter_raw():
        body += piece
        if len(body) >= ANSWER_BYTES:
            break
        if time.monotonic() > until:
            raise NotCalled(_("The answer took longer than %(seconds)d s.") % {"seconds": TOTAL_SECONDS})
    return body[:ANSWER_BYTES].decode("utf-8", "replace").replace("\x00", "")
