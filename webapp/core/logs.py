"""Lines of the log: one for one event, whatever somebody has put into a name, and without secrets."""

from __future__ import annotations

import logging
import re
from types import TracebackType

# Whatever moves the cursor, hides text or ends a line in a terminal or an editor.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_SECRETS = (
    # API tokens of ours, secrets of webhooks, tokens of the Hub.
    (re.compile(r"\b(graft_|whsec_|hf_)[\w+/=-]{16,}"), r"\1***"),
    # A password in the address of a server.
    (re.compile(r"(\w+://[^\s/:@]*):[^\s/@]+@"), r"\1:***@"),
    # Links that let their holder in.
    (re.compile(r"(/join/|/password/reset/key/|/account/email/confirm/)[^\s/?]+"), r"\1***"),
    (re.compile(r"((?:sessionid|csrftoken|csrfmiddlewaretoken|[Aa]uthorization)['\"]?\s*[=:]\s*['\"]?(?:Bearer\s+)?)[^\s;'\"]+"), r"\1***"),
)  # fmt: skip
_Failure = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def plain(text: str) -> str:
    """The text as one line: control characters as escapes, secrets as asterisks."""
    for secret, mask in _SECRETS:
        text = secret.sub(mask, text)
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class LineFormatter(logging.Formatter):
    """Every message on a line of its own; those of a traceback stand in, so that none can be taken for an event."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is Python's
        """The first line."""
        record.message = plain(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: _Failure) -> str:  # noqa: N802
        """The lines of a traceback."""
        return "\n".join(f"    {plain(line)}" for line in super().formatException(ei).split("\n"))
