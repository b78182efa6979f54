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

    # PEFT's class for question answering drops `token_type_ids` on their way to the model; the plain one passes on whatever it gets.
    plain = setup.task == "question_answering" and not config.is_prompt_learning
    config.task_type = None if plain else TASK_TYPES[setup.task]
    if setup.heads:
        config.modules_to_save = list(setup.heads)
    torch.manual_seed(setup.seed)
    try:
        return in_float32(get_peft_model(model, config, autocast_adapter_dtype=True))
    except (ValueError, TypeError, RuntimeError, AssertionError, NotImplementedError) as failure:
        reason = " ".join(str(failure).split())[:300] or type(failure).__name__
        raise UserError(
            "method_cannot", method=method, reason=reason, instead="Change its settings, or choose another method.",
            where={"field": "method.id"},
        ) from failure  # fmt: skip


def in_float32(model: Any) -> Any:
    """`model` with all that is trained in float32: PEFT widens its own weights, but not a head that is trained whole."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
    return model


def merged(model: Any) -> Any:
    """The plain model with its adapter added into the weights, by PEFT's own merge. Raises what PEFT raises.

    What is trained whole (a task's head) is put in its place before: PEFT moves it by its `weight`, which a head of several layers
    (RoBERTa's) has not.
    """
    from peft.utils.other import ModulesToSaveWrapper

    wrapped = [(name, module) for name, module in model.get_base_model().named_modules() if isinstance(module, ModulesToSaveWrapper)]
    for name, module in wrapped:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_base_model().get_submodule(parent), leaf, module.modules_to_save[str(module.active_adapter)])
    return model.merge_and_unload()
