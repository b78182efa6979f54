"""System checks: a site that would be unsafe or broken says so before it starts, with what to do about it."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import ERROR, CheckMessage, Error, Warning, register

# From this version on the JSON functions, which the curves are read with, are always built in.
_SQLITE_OLDEST = (3, 38, 0)
_KEY_LENGTH = 32
# How those begin that stand in examples and templates, in small letters; long enough that no random key does.
_KNOWN_KEYS = (
    "django-insecure-", "change-me", "change_me", "changeme", "replace-me", "replace_me", "your-secret", "your_secret", "my-secret",
    "secret-key", "secret_key", "secretkey", "insecure", "password",
)  # fmt: skip
_SOCKET_LENGTH = 107


@register()
def secret_key(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001: no secret key. E005: one out of an example. W001: one that is short."""
    key = str(settings.SECRET_KEY)
    if key == "unset":
        hint = "Run `manage.py prepare`, which writes one, or set GRAFT_SECRET_KEY."
        return [Error("The site has no secret key.", hint=hint, id="graft.E001")]
    if key.lower().startswith(_KNOWN_KEYS) or key.lower() == "secret":
        hint = f"Set GRAFT_SECRET_KEY to {_KEY_LENGTH} random characters or more, or leave it out: `manage.py prepare` writes one."
        return [Error("The secret key is one that everybody knows.", hint=hint, id="graft.E005")]
    if len(key) < _KEY_LENGTH:
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


def refuse_to_start_unsafe() -> None:
    """Ends a server that is started without `manage.py`, which would have looked. Raises `SystemExit` with what is wrong."""
    wrong = [message for check in (secret_key, hosts) for message in check(None) if message.level >= ERROR]
    if wrong:
        raise SystemExit("\n".join(map(str, wrong)))


def stack() -> str:
    """What the site runs on, in one line: said at start-up, so that no fallback is silent."""
    database = settings.DATABASES["default"]["ENGINE"].rpartition(".")[2]
    redis = f"embedded redis-server ({settings.GRAFT_REDIS_SOCKET})" if settings.GRAFT_REDIS_EMBEDDED else "Redis by REDIS_URL"
    where = f" ({settings.DATABASES['default']['NAME']})" if database == "sqlite3" else " by DATABASE_URL"
    return f"database: {database}{where}; {redis}"
