"""What a training process that was started ahead of its run is told: one line of JSON on its standard input. Free of torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class HandOver:
    """The arguments of `python -m jobs train`, and the file that its output goes to. All are absolute paths.

    `leash` says until when the process may work (`jobs.leash`); `private` is the folder that it gives up (`jobs.commands.reach`).
    """

    spec: str
    out: str
    resume: tuple[str, ...]
    token_cache: str
    token_cache_bytes: int
    log: str
    leash: str
    private: str = ""

    def to_line(self) -> bytes:
        """As it is written."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> HandOver:
        """As it is read. Raises `ValueError`, `TypeError` where it is something else."""
        body = json.loads(line)
        return cls(**{**body, "resume": tuple(body["resume"])})
