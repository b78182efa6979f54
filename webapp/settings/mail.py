"""E-mail from one address of a server, `smtp://user:password@host:port`; without it no mail is sent, and pages show links instead."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

# What a page may wait for a mail server, in seconds.
TIMEOUT_SECONDS = 10
_PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}


@dataclass(frozen=True)
class Mail:
    """How mail is sent; the fields are Django's settings EMAIL_*."""

    backend: str = "django.core.mail.backends.dummy.EmailBackend"
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    use_tls: bool = False
    use_ssl: bool = False


def mail_from(url: str) -> Mail:
    """The mail server of a URL: `smtp` begins in plain text and changes to TLS, `smtps` is TLS from the first byte, and `smtp+plain` sends
    in the clear, for a server on the same machine. Empty: mail goes nowhere. Raises `ValueError` for anything else.
    """
    if not url:
        return Mail()
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("GRAFT_EMAIL_URL must read smtp://user:password@host:port (or smtps://, smtp+plain://)")
    return Mail(
        backend="django.core.mail.backends.smtp.EmailBackend",
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        use_tls=parts.scheme == "smtp",
        use_ssl=parts.scheme == "smtps",
    )
