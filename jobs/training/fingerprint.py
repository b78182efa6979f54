"""What must be the same for a checkpoint to be continued: task, method, settings, rows, seed. Not where any of it lies.

How long the training is to be stands apart: a run may be extended, and what that changes is told (`Trainer.restore`). So does the size
of a micro-batch: a run that ran out of memory goes on with smaller ones, whose steps are of the same rows.
"""

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

LENGTH = ("epochs", "max_steps")
# How a step's rows are cut into micro-batches; how many they are and which is part of what must be the same.
BATCHES = ("micro_batch", "gradient_accumulation", "micro_batch_tokens")


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
        "training": {key: value for key, value in training.items() if not key.endswith("_every_steps") and key not in (*LENGTH, *BATCHES)},
        "effective_batch": spec.training.micro_batch * spec.training.gradient_accumulation,
        "length": {key: training[key] for key in LENGTH},
        "seed": spec.seed,
        "rows": digest.hexdigest(),
    }


def kept_fingerprint(state: Mapping[str, Any]) -> dict[str, Any]:
    """That of a checkpoint's `state.json`, with what an older one lacks: the task was writing; adapters stood with the method, by path;
    length and micro-batches stood with the training.
    """
    found: dict[str, Any] = {"task": "causal_lm", "adapters": [], **state.get("fingerprint", {})}
    if "method" in found:
        found["method"] = {key: value for key, value in found["method"].items() if key != "adapters"}
    training = found.get("training", {})
    if any(key in training for key in LENGTH):
        found["length"] = {key: training.get(key) for key in LENGTH}
        training = {key: value for key, value in training.items() if key not in LENGTH}
    if "micro_batch" in training:
        found["effective_batch"] = training["micro_batch"] * training["gradient_accumulation"]
        training = {key: value for key, value in training.items() if key not in BATCHES}
    if "training" in found:
        found["training"] = training
    return found
