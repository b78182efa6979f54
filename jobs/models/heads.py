"""What a task puts upon a base model: the class of transformers that loads it, its labels, and which of its parts begin from nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.errors import UserError
from jobs.models.architectures import architecture_of, is_encoder
from jobs.spec import Task

# Attribute of a loaded model: the modules whose weights its files do not have.
_FRESH = "graft_fresh_modules"
# What is never quantised, by the beginning or the end of a module's name: a head must train, and BERT's pooler is a part of one where the
# files lack it.
HEAD_MODULES = (
    "lm_head", "score", "classifier", "pre_classifier", "qa_outputs", "pooler", "pooler.dense", "head", "sequence_summary",
)  # fmt: skip


@dataclass(frozen=True)
class Head:
    """`auto`: the transformers class by which model and merged model are loaded. `config`: what differs in the model's config (number and
    names of labels, the kind of problem, the padding token). `seed`: what fresh weights are drawn by.
    """

    auto: str = "AutoModelForCausalLM"
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def stands_alone(self) -> bool:
        """Whether the base's files hold the whole model, output layer included: for all tasks that write text."""
        return self.auto in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM")

    @property
    def unquantised(self) -> list[str] | None:
        """The modules that are never quantised, as transformers takes them; None: those that it chooses by itself."""
        return None if self.stands_alone else list(HEAD_MODULES)


CAUSAL = Head()
# Beside an adapter of a task with a head: how its base is to be loaded.
FILE = "head.json"
_CLASSES = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForSequenceClassification", "AutoModelForQuestionAnswering",
            "AutoModelForMultipleChoice")  # fmt: skip
_KEYS = ("num_labels", "id2label", "label2id", "problem_type", "pad_token_id")


# The class that loads a checkpoint whose architecture ends so.
_BY_ARCHITECTURE = {
    "ForSequenceClassification": "AutoModelForSequenceClassification", "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "ForMultipleChoice": "AutoModelForMultipleChoice", "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
}  # fmt: skip
_TASKS: dict[str, Task] = {
    "AutoModelForCausalLM": "causal_lm", "AutoModelForSeq2SeqLM": "seq2seq_lm", "AutoModelForQuestionAnswering": "question_answering",
    "AutoModelForMultipleChoice": "multiple_choice",
}  # fmt: skip


def finished_head(folder: Path, adapter: Path | None) -> Head:
    """The head of a finished model: what its adapter's folder says, else what the architecture in its config ends in.

    Raises `UserError`: `adapter_unusable`; `model_missing`; `model_writes_not` for an encoder that has a head for no task.
    """
    try:
        given = read_head(adapter) if adapter else CAUSAL
    except ValueError as failure:
        raise UserError("adapter_unusable", path=adapter, reason=failure) from None
    if given != CAUSAL:
        return given
    architecture = architecture_of(folder)
    auto = next((auto for ending, auto in _BY_ARCHITECTURE.items() if architecture.endswith(ending)), None)
    if auto is None and is_encoder(architecture):
        what = f"it is a {architecture}, an encoder without a head for a task"
        raise UserError("model_writes_not", what=what, where={"field": "model"})
    return Head(auto) if auto else CAUSAL


def task_of(head: Head, config: Any) -> Task:
    """The task of a finished model with this head; `config` is the loaded model's."""
    if head.auto in _TASKS:
        return _TASKS[head.auto]
    return "regression" if config.problem_type == "regression" or config.num_labels == 1 else "sequence_classification"


def labels_config(labels: Iterable[str]) -> dict[str, Any]:
    """The config of a head with these classes, in their order."""
    named = dict(enumerate(labels))
    return {"num_labels": len(named), "id2label": named, "label2id": {label: index for index, label in named.items()}}


def mark_fresh(model: Any, missing: Iterable[str]) -> None:
    """Keeps with `model` which of its modules began from nothing; `missing` are the weights that its files do not have."""
    setattr(model, _FRESH, fresh_modules(model, set(missing)))


def fresh_heads(model: Any) -> tuple[str, ...]:
    """The names of the modules of a loaded model that began from nothing: they are trained whole and saved with an adapter."""
    found: tuple[str, ...] = getattr(model, _FRESH, ())
    return found


def fresh_modules(model: Any, missing: set[str]) -> tuple[str, ...]:
    """The largest modules that have no weight but `missing` ones, sorted."""
    weights = [name for name, _ in model.named_parameters()]
    found = set()
    for name in missing & set(weights):
        module = name.rpartition(".")[0]
        while (above := module.rpartition(".")[0]) and all(other in missing for other in weights if other.startswith(f"{above}.")):
            module = above
        found.add(module)
    return tuple(sorted(found))


def write_head(head: Head, folder: Path) -> None:
    """Leaves beside an adapter how its base is to be loaded; nothing where any causal model is."""
    if head != CAUSAL:
        (folder / FILE).write_text(json.dumps({"auto": head.auto, "config": head.config}, indent=2) + "\n", encoding="utf-8")


def read_head(folder: Path) -> Head:
    """What `write_head` left in an adapter's folder; `CAUSAL` where that is nothing. Raises `ValueError` where it is anything else."""
    file = folder / FILE
    if not file.is_file():
        return CAUSAL
    body = json.loads(file.read_text(encoding="utf-8"))
    found = body if isinstance(body, dict) else {}
    config = found.get("config")
    if found.get("auto") not in _CLASSES or not isinstance(config, dict) or not config.keys() <= set(_KEYS):
        raise ValueError(f"{FILE} is not as it was written")
    config = dict(config)
    if "id2label" in config:
        config["id2label"] = {int(number): label for number, label in config["id2label"].items()}
    return Head(found["auto"], config)
