"""The environment, read once, typed and loud: a value that does not parse stops the program with its name.

Every name begins with `GRAFT_`, but for the three that hosting platforms set themselves (`DATABASE_URL`, `REDIS_URL`, `HF_ENDPOINT`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parents[2]


class Environment(BaseSettings):
    """What can be set from outside. The defaults give the embedded site: SQLite and a private redis-server under `var`."""

    model_config = SettingsConfigDict(env_prefix="GRAFT_", extra="ignore")

    var: Path = PROJECT / "var"
    sample_model: Path = PROJECT / "var" / "sample-model"
    first_run: bool = True
    admin_password: str = ""
    debug: bool = False
    secret_key: str = ""
    hosts: str = "localhost,127.0.0.1,[::1]"
    trusted_origins: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    behind_tls: bool = False
    log_level: str = "INFO"
    time_zone: str = "UTC"
    # Where mail is sent from; without a server none is sent (webapp/settings/mail.py).
    email_url: str = ""
    email_from: str = "Graft <graft@localhost>"

    database_url: str = Field(default="", validation_alias=AliasChoices("DATABASE_URL"))
    redis_url: str = Field(default="", validation_alias=AliasChoices("REDIS_URL"))
    hub_endpoint: str = Field(default="https://huggingface.co", validation_alias=AliasChoices("HF_ENDPOINT"))

    # Owners of the hub whose models teams may add, comma-separated; empty: of all.
    hub_owners: str = ""
    # Folders of this host, comma-separated, below which teams may take base models.
    model_folders: str = ""

    # Hosts of private networks that webhooks may reach, comma-separated (webapp/core/outbound.py).
    outbound_hosts: str = ""

    upload_limit_bytes: int = 20 * 2**30
    request_limit_bytes: int = 2 * 2**20
    chunk_limit_bytes: int = 16 * 2**20
    api_requests_per_minute: int = 600
    # Whether models are served: `on`; `idle`, only while nothing is trained; `off`. And when an idle model is let go.
    serving: Literal["on", "idle", "off"] = "on"
    serving_idle_seconds: float = 600
    sockets_per_user: int = 10
    sockets_per_process: int = 5000

    # The clock of a run's lease. A run is taken from a silent worker `reap_grace_seconds` after its lease has ended; the worker kills
    # its own child before that, at `self_fence_seconds` without a renewal, so that two attempts never overlap.
    lease_seconds: float = 60
    heartbeat_seconds: float = 10
    self_fence_seconds: float = 45
    reap_grace_seconds: float = 15
    stop_grace_seconds: float = 60
    cancel_grace_seconds: float = 10
    desired_poll_seconds: float = 1
    dispatch_seconds: float = 1
    doorbell_repeat_seconds: float = 30
    stall_seconds: float = 600
    # How often a run that was lost through no fault of its user is tried again: a silent worker; a child that was killed.
    infra_retries: int = 3
    crash_retries: int = 2
    worker_forget_seconds: float = 60
    # A worker that has nothing to do while doorbells wait for so long has lost its hearing, and ends to be started anew.
    deaf_seconds: float = 180
    # A process that has done its imports waits in each training worker (about 400 MB), so that a run starts at once.
    warm_child: bool = True
    # How much of a dataset version's token ids is kept.
    token_cache_bytes: int = 4 * 2**30

    def split(self, text: str) -> list[str]:
        """A comma-separated setting as a list."""
        return [item.strip() for item in text.split(",") if item.strip()]


ENV = Environment()
