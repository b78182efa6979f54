"""The small models of the matrix, and rows to train them on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, Qwen2Config

from jobs.methods.entry import Method
from jobs.spec import Task
from tests.tiny import VOCABULARY, make_tiny_model, tiny_config

ROWS = 8
TASKS: tuple[Task, ...] = ("causal_lm",)
_PLACES = ("kitchen", "harbour", "garden", "station")


@dataclass(frozen=True)
class Material:
    """What a cell is trained on: the folder of a base model, and a file of rows."""

    model: Path
    rows: Path


def architectures(method: Method, task: Task) -> tuple[str, ...]:
    """The kinds of small model that a method is tried on for a task, by the architecture's name."""
    if task not in TASKS:
        return ()
    return ("qwen2",) if "biases" in method.capabilities.needs else ("llama",)


def material(root: Path, architecture: str, task: Task) -> Material:
    """Makes model and rows under `root`, or finds those made before. Models are untied, float32, 2 layers, 64 wide."""
    model, rows = root / architecture, root / f"{task}.jsonl"
    if not model.exists():
        make_tiny_model(model, config=_CONFIGS[architecture]())
    if not rows.exists():
        rows.write_text("".join(json.dumps(row) + "\n" for row in _rows(task)), encoding="utf-8")
    return Material(model, rows)


def _rows(task: Task) -> list[dict[str, Any]]:
    """`ROWS` short rows of a task in a layout that Graft reads, of several lengths."""
    return [{"prompt": f"{'To ' * (1 + number % 3)}", "completion": _PLACES[number % 4]} for number in range(ROWS)]


def _qwen2() -> PretrainedConfig:
    """Biases on q, k and v."""
    return Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=1, tie_word_embeddings=False, initializer_range=0.15,
    )  # fmt: skip


def _llama() -> PretrainedConfig:
    return tiny_config(initializer_range=0.15)


_CONFIGS = {"llama": _llama, "qwen2": _qwen2}
