"""Which tasks a model can be trained for, by the name of its architecture. Free of torch."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jobs.errors import UserError
from jobs.spec import Task

_CAUSAL = ("ForCausalLM", "LMHeadModel")
# Encoders whose transformers classes for all three tasks take the body of a checkpoint of any of these heads, each tried.
_ENCODER = re.compile(
    r"(?:Bert|Roberta|XLMRoberta|Camembert|DistilBert|Electra|Albert|DebertaV2|ModernBert|MPNet)"
    r"(?:Model|For(?:MaskedLM|PreTraining|SequenceClassification|QuestionAnswering|MultipleChoice))"
)
_ENCODER_DECODER = ("T5ForConditionalGeneration", "MT5ForConditionalGeneration")

CAUSAL_TASKS: tuple[Task, ...] = ("causal_lm", "sequence_classification", "regression")
ENCODER_TASKS: tuple[Task, ...] = ("sequence_classification", "regression", "question_answering", "multiple_choice")
ENCODER_DECODER_TASKS: tuple[Task, ...] = ("seq2seq_lm",)


def is_encoder(architecture: str) -> bool:
    """Whether it is an encoder that is known here."""
    return _ENCODER.fullmatch(architecture) is not None


def tasks_of(architecture: str) -> tuple[Task, ...]:
    """The tasks of a model whose config names this architecture; none where it is unknown.

    A causal model answers questions and chooses by writing and by likelihood, as `causal_lm`: transformers' own question answering on
    Llama leaves the checkpoint's body unread (its parts have other names), and multiple choice has no causal class.
    """
    if is_encoder(architecture):
        return ENCODER_TASKS
    if architecture in _ENCODER_DECODER:
        return ENCODER_DECODER_TASKS
    return CAUSAL_TASKS if architecture.endswith(_CAUSAL) else ()


def architecture_of(folder: Path) -> str:
    """The architecture that the model in `folder` names in its config, empty where it names none. Raises `UserError("model_missing")`."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError("model_missing", path=folder) from None
    names = config.get("architectures") if isinstance(config, dict) else None
    return str(names[0]) if isinstance(names, list) and names else ""


def require_task(folder: Path, task: Task) -> str:
    """The architecture of the model in `folder`. Raises `UserError("model_task")` where it is known, and not for such a task."""
    architecture = architecture_of(folder)
    known = tasks_of(architecture)
    if known and task not in known:
        raise UserError("model_task", architecture=architecture, task=task, known=", ".join(known), where={"field": "task"})
    return architecture
