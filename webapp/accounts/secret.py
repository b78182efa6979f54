"""Secrets that are shown once: what is stored of an invitation's link and of an API token."""

from __future__ import annotations

import hashlib


def digest(secret: str) -> str:
    """The SHA-256 of a secret, as hexadecimal digits. The secrets are 256 random bits, which need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
