"""Names in Redis: what is asked, what is taken back, whether somebody serves, and one stream for each answer."""

from __future__ import annotations

ASKS = "graft:serving:asks"
CANCELS = "graft:serving:cancels"
# Held by the worker that serves, renewed every second; its value is the worker's name.
HEART = "graft:serving:heart"
HEART_SECONDS = 6
ANSWER_LENGTH = 50_000
# An answer that nobody fetched is forgotten.
ANSWER_SECONDS = 600


def answer_key(ask_id: str) -> str:
    """The stream of one answer."""
    return f"graft:serving:answer:{ask_id}"
