"""The processes of a site and how each is started. `manage.py up` supervises all of them, `manage.py process NAME` becomes one."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field

import pynvml
from django.conf import settings

from webapp.core.redis import server_binary

# A WebSocket may stay open for hours: it is closed, not waited for, and its page comes back with its cursor.
GRACEFUL_SECONDS = 3


@dataclass(frozen=True)
class Process:
    """One process of the site: its name, its command, and what its environment has besides. `trains`: it may hold a run."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    trains: bool = False


def redis_process() -> Process:
    """The embedded redis-server; its configuration is written by `prepare`. Raises `FileNotFoundError` where there is no binary."""
    binary = server_binary()
    if binary is None:
        raise FileNotFoundError("redis-server")
    return Process("redis", (str(binary), str(settings.GRAFT_VAR / "redis" / "redis.conf")))


def web_process(host: str, port: int) -> Process:
    """The web server. Frames from browsers are small and counted; deflate would let a small frame become a large one."""
    options = {
        "--host": host,
        "--port": str(port),
        "--http": "webapp.core.server:PatientProtocol",
        "--ws": "webapp.core.server:PatientSocket",
        "--ws-max-size": "65536",
        "--ws-ping-interval": "20",
        "--ws-ping-timeout": "20",
        "--ws-per-message-deflate": "false",
        "--limit-concurrency": "6000",
        "--timeout-keep-alive": "5",
        "--timeout-graceful-shutdown": str(GRACEFUL_SECONDS),
        "--lifespan": "off",
    }
    flags = [text for option in options.items() for text in option]
    return Process("web", (sys.executable, "-m", "uvicorn", "webapp.asgi:application", *flags, "--no-server-header", "--no-access-log"))


def dispatcher_process() -> Process:
    """The dispatcher."""
    return Process("dispatcher", (sys.executable, "manage.py", "dispatch"))


def worker_process(name: str, queue: str, environment: dict[str, str] | None = None, *, at_once: int = 1) -> Process:
    """A Celery worker for one queue."""
    options = ("-Q", queue, "-c", str(at_once), "-n", f"{name}@%h", "--without-gossip", "--without-mingle", "-l", "INFO")
    command = (sys.executable, "-m", "celery", "--quiet", "-A", "webapp", "worker", *options)
    return Process(name, command, environment or {}, trains=queue == "train")


def training_processes() -> list[Process]:
    """One training worker for each GPU, which sees that one alone; without a GPU one for the CPU."""
    gpus = visible_gpus()
    if not gpus:
        return [worker_process("train0", "train")]
    return [worker_process(f"train{index}", "train", {"CUDA_VISIBLE_DEVICES": gpu}) for index, gpu in enumerate(gpus)]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them. Asked of the driver, without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    return []


def site_processes(host: str, port: int) -> list[Process]:
    """Every process but Redis, which must answer before these start."""
    # Two short tasks at once, so that the validation of a dataset need not wait for the download of a model.
    short = worker_process("short", "short", at_once=2)
    return [web_process(host, port), dispatcher_process(), short, worker_process("serve", "serve"), *training_processes()]
