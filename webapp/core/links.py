"""Addresses of the site as people reach it from outside, for what leaves it: mails, invitations, messages."""

from __future__ import annotations

from urllib.parse import urlsplit

from webapp.settings.env import ENV


def site_origin() -> str | None:
    """The first of GRAFT_TRUSTED_ORIGINS that names one host, None where none does."""
    named = (origin.rstrip("/") for origin in ENV.split(ENV.trusted_origins) if "*" not in origin)
    return next(named, None)


def at_site(url: str) -> str:
    """The address with the site's own origin in the place of the one that the request named: of a Host, the port is anybody's choice."""
    origin, parts = site_origin(), urlsplit(url)
    return url if origin is None else f"{origin}{parts.path}{f'?{parts.query}' if parts.query else ''}"
