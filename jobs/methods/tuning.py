"""What every method by PEFT shares: the adapter put upon a model, drawn from the run's seed."""

from __future__ import annotations

from typing import Any

import torch

from jobs.errors import UserError
from jobs.methods.setup import Setup
from jobs.spec import Task

# PEFT's names of the tasks. It has none for regression (a classification of one class) and multiple choice (which it leaves as it is).
TASK_TYPES: dict[Task, str | None] = {
    "causal_lm": "CAUSAL_LM",
    "sequence_classification": "SEQ_CLS",
    "regression": "SEQ_CLS",
    "question_answering": "QUESTION_ANS",
    "multiple_choice": None,
    "seq2seq_lm": "SEQ_2_SEQ_LM",
}


def adapted(model: Any, config: Any, setup: Setup, *, method: str) -> Any:
    """`model` with the adapter of a PEFT `config`, its weights in float32 and drawn from the run's seed, for the run's task.

    The head of a task other than text is trained whole and saved with the adapter. Raises `UserError("method_cannot")` where the method
    does not fit the model's shapes, in PEFT's words.
    """
    from peft import get_peft_model

    config.task_type = TASK_TYPES[setup.task]
    torch.manual_seed(setup.seed)
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=True)
    except (ValueError, TypeError, RuntimeError, AssertionError, NotImplementedError) as failure:
        reason = " ".join(str(failure).split())[:300] or type(failure).__name__
        raise UserError(
            "method_cannot", method=method, reason=reason, instead="Change its settings, or choose another method.",
            where={"field": "method.id"},
        ) from failure  # fmt: skip
