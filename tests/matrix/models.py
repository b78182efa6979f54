"""The small models of the matrix, and rows to train them on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GPT2Config, PretrainedConfig, Qwen2Config

from jobs.methods.entry import Method
from jobs.spec import Task
from tests.tiny import VOCABULARY, make_tiny_model
from tests.tiny_architectures import make_tiny_architecture

ROWS = 8
_PLACES = ("kitchen", "harbour", "garden", "station")

# The models that a task is tried on; the first one on every base that a method claims.
_MODELS: dict[Task, tuple[str, ...]] = {
    "causal_lm": ("llama", "gpt2"),
    "sequence_classification": ("bert", "roberta", "llama"),
    "regression": ("roberta",),
    "question_answering": ("bert",),
    "multiple_choice": ("roberta",),
    "seq2seq_lm": ("t5",),
}
# Of the same kind, with biases.
_WITH_BIASES = {"llama": "qwen2"}


@dataclass(frozen=True)
class Material:
    """What a cell is trained on: the folder of a base model, and a file of rows."""

    model: Path
    rows: Path


def architectures(method: Method, task: Task) -> tuple[str, ...]:
    """The kinds of small model that a method is tried on for a task, by the architecture's name."""
    if "biases" in method.capabilities.needs:
        return tuple(_WITH_BIASES.get(kind, kind) for kind in _MODELS[task])
    if "linear" in method.capabilities.needs:
        return tuple(kind for kind in _MODELS[task] if kind != "gpt2")
    return _MODELS[task]


def material(root: Path, architecture: str, task: Task) -> Material:
    """Makes model and rows under `root`, or finds those made before. Models are float32, 2 layers, 64 wide."""
    model, rows = root / architecture, root / f"{task}.jsonl"
    if not model.exists():
        if architecture in _CONFIGS:
            make_tiny_model(model, config=_CONFIGS[architecture]())
        else:
            make_tiny_architecture(model, architecture)  # type: ignore[arg-type]
    if not rows.exists():
        made = [_ROWS[task](number, _PLACES[number % 4]) for number in range(ROWS)]
        rows.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return Material(model, rows)


def _question(number: int, place: str) -> dict[str, Any]:
    context = f"{'So ' * (1 + number % 3)}to {place}"
    return {"question": "Where?", "context": context, "answers": [{"text": place, "answer_start": context.index(place)}]}


# A row by its number, in the layout of a task: a few short ones, of several lengths.
_ROWS: dict[Task, Callable[[int, str], dict[str, Any]]] = {
    "causal_lm": lambda number, place: {"prompt": "To " * (1 + number % 3), "completion": place},
    "sequence_classification": lambda number, place: {"text": f"{place} {number}", "label": "abc"[number % 3]},
    "regression": lambda number, place: {"text": f"{place} {number}", "number": 0.5 * number},
    "question_answering": _question,
    "multiple_choice": lambda number, place: {
        "question": f"To {place}", "choices": ["on", "out", "in"][: 2 + number % 2], "answer": number % 2,
    },
    "seq2seq_lm": lambda number, place: {"prompt": "To " * (1 + number % 3), "completion": place},
}  # fmt: skip


def _qwen2() -> PretrainedConfig:
    """Biases on q, k and v."""
    return Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=1, tie_word_embeddings=False, initializer_range=0.15,
    )  # fmt: skip


def _gpt2() -> PretrainedConfig:
    """Its layers are `Conv1D`, whose weights lie the other way round; its output layer is the embedding."""
    return GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=512, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        initializer_range=0.15,
    )  # fmt: skip


_CONFIGS = {"qwen2": _qwen2, "gpt2": _gpt2}
