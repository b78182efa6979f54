"""Signed messages by Standard Webhooks 1.0 (https://www.standardwebhooks.com): the secret of a webhook, and the headers of a message."""

from __future__ import annotations

import base64
import hashlib
import hmac

from django.utils.crypto import salted_hmac

from webapp.notices.models import Webhook

PREFIX = "whsec_"


def secret_of(webhook: Webhook) -> str:
    """The secret, `whsec_` and 32 bytes in base64.

    It is derived from the site's secret key, the webhook and its generation, so that nothing in the database gives it away; a new
    generation, or a new GRAFT_SECRET_KEY, makes another.
    """
    key = salted_hmac("webapp.notices.webhook", f"{webhook.id}:{webhook.generation}", algorithm="sha256").digest()
    return PREFIX + base64.b64encode(key).decode()


def headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message that is sent at `timestamp` (seconds since the epoch)."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
