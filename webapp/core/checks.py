"""System checks: a site that would be unsafe or broken says so before it starts, with what to do about it."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

# From this version on the JSON functions, which the curves are read with, are always built in.
_SQLITE_OLDEST = (3, 38, 0)
_KEY_LENGTH = 32
_SOCKET_LENGTH = 107


@register()
def secret_key(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001: no secret key. W001: one that can be guessed."""
    if settings.SECRET_KEY == "unset":  # noqa: S105
        hint = "Run `manage.py prepare`, which writes one, or set GRAFT_SECRET_KEY."
        return [Error("The site has no secret key.", hint=hint, id="graft.E001")]
    if len(settings.SECRET_KEY) < _KEY_LENGTH:
        return [Warning("The secret key is short enough to be guessed.", hint=f"Use {_KEY_LENGTH} characters or more.", id="graft.W001")]
    return []


@register()
def hosts(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E002: with `*` in ALLOWED_HOSTS the Origin of a WebSocket is not checked, and any page could open one."""
    if "*" in settings.ALLOWED_HOSTS:
        return [Error("GRAFT_HOSTS must not hold '*'.", hint="Name the hosts that the site is reached by, with commas.", id="graft.E002")]
    return []


@register()
def redis_socket(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E003: the kernel takes no longer path for a socket."""
    if settings.GRAFT_REDIS_EMBEDDED and len(str(settings.GRAFT_REDIS_SOCKET)) > _SOCKET_LENGTH:
        return [Error(f"The path {settings.GRAFT_REDIS_SOCKET} is too long for a socket.", hint="Shorten TMPDIR.", id="graft.E003")]
    return []


@register()
def private_files(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W002: others on this machine can read the data, or the secret key."""
    key: Path = settings.GRAFT_VAR / "secret-key"
    found = [str(path) for path in (settings.GRAFT_VAR, key) if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    return [Warning(f"{path} is open to other users.", hint=f"chmod go= {path}", id="graft.W002") for path in found]


@register()
def sqlite_version(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E004: an SQLite that is too old."""
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3") and sqlite3.sqlite_version_info < _SQLITE_OLDEST:
        oldest = ".".join(map(str, _SQLITE_OLDEST))
        return [Error(f"SQLite {sqlite3.sqlite_version} is too old.", hint=f"Use {oldest} or newer, or PostgreSQL.", id="graft.E004")]
    return []


def stack() -> str:
    """What the site runs on, in one line: said at start-up, so that no fallback is silent."""
    database = settings.DATABASES["default"]["ENGINE"].rpartition(".")[2]
    redis = f"embedded redis-server ({settings.GRAFT_REDIS_SOCKET})" if settings.GRAFT_REDIS_EMBEDDED else "Redis by REDIS_URL"
    where = f" ({settings.DATABASES['default']['NAME']})" if database == "sqlite3" else " by DATABASE_URL"
    return f"database: {database}{where}; {redis}"
