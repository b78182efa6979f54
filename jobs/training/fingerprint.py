"""What must be the same for a checkpoint to be continued: task, method, settings, rows, seed. Not where any of it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.adapter_files import CONFIG, WEIGHTS
from jobs.data.token_cache import sha256
from jobs.data.tokens import Row
from jobs.spec import RunSpec


def fingerprint(spec: RunSpec, rows: Iterable[Row], adapters: Sequence[Path]) -> dict[str, Any]:
    """Of a run on these training `rows` that builds on finished `adapters`, each in its folder."""
    training = asdict(spec.training)
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.content)
    return {
        "task": spec.task,
        "method": {"id": spec.method.id, "settings": dict(spec.method.settings)},
        "adapters": [[sha256(folder / name) for name in (CONFIG, WEIGHTS) if (folder / name).is_file()] for folder in adapters],
        "training": {key: value for key, value in training.items() if not key.endswith("_every_steps")},
        "seed": spec.seed,
        "rows": digest.hexdigest(),
    }


def kept_fingerprint(state: Mapping[str, Any]) -> dict[str, Any]:
    """That of a checkpoint's `state.json`, with what an older one lacks: the task was writing; adapters stood with the method, by path."""
    found: dict[str, Any] = {"task": "causal_lm", "adapters": [], **state.get("fingerprint", {})}
    if "method" in found:
        found["method"] = {key: value for key, value in found["method"].items() if key != "adapters"}
    return found
