"""System checks: each speaks for its fault, and is silent without it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage

from webapp.core import checks


def ids(messages: list[CheckMessage]) -> list[str | None]:
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("unset", ["graft.E001"]), ("change-me", ["graft.E005"]), ("django-insecure-" + "k" * 50, ["graft.E005"]),
        ("short", ["graft.W001"]), ("k" * 64, []),
    ],
)  # fmt: skip
def test_secret_key(settings: Any, key: str, expected: list[str]) -> None:
    settings.SECRET_KEY = key
    assert ids(checks.secret_key(None)) == expected
    if any("E" in name for name in expected):
        with pytest.raises(SystemExit, match="secret key"):
            checks.refuse_to_start_unsafe()
    else:
        checks.refuse_to_start_unsafe()


def test_any_host(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["graft.example"]
    assert ids(checks.hosts(None)) == []
    settings.ALLOWED_HOSTS = ["graft.example", "*"]
    assert ids(checks.hosts(None)) == ["graft.E002"]


def test_a_socket_that_the_kernel_refuses(settings: Any) -> None:
    settings.GRAFT_REDIS_EMBEDDED = True
    settings.GRAFT_REDIS_SOCKET = Path("/tmp/graft/redis.sock")
    assert ids(checks.redis_socket(None)) == []
    settings.GRAFT_REDIS_SOCKET = Path("/" + "x" * 110)
    assert ids(checks.redis_socket(None)) == ["graft.E003"]


def test_open_files(settings: Any, tmp_path: Path) -> None:
    settings.GRAFT_VAR = tmp_path
    tmp_path.chmod(0o700)
    key = tmp_path / "secret-key"
    os.close(os.open(key, os.O_CREAT, 0o600))
    assert ids(checks.private_files(None)) == []
    key.chmod(0o640)
    tmp_path.chmod(0o755)
    assert ids(checks.private_files(None)) == ["graft.W002", "graft.W002"]


def test_an_old_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(checks.sqlite_version(None)) == []
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 0))
    assert ids(checks.sqlite_version(None)) == ["graft.E004"]


def test_what_the_site_runs_on_is_said(settings: Any) -> None:
    settings.GRAFT_REDIS_EMBEDDED = False
    assert checks.stack().startswith("database: sqlite3 (")
    assert checks.stack().endswith("Redis by REDIS_URL")
