"""Why a method cannot be taken, before anything is loaded (free of torch): one answer for form, command line and API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from jobs.methods.entry import Method, Need
from jobs.spec import TASKS, Task

# Their layers are transformers' Conv1D.
_OTHER_LAYERS = ("GPT2LMHeadModel", "OpenAIGPTLMHeadModel")


def obstacle(
    method: Method,
    *,
    task: Task,
    facts: Mapping[str, Any],
    model: str,
    device_kinds: Collection[str],
    adapters: Mapping[str, int],
) -> str:
    """One clause that says why `method` does not fit; empty where nothing that is known speaks against it.

    `facts` are those of the base model (`jobs.models.inspect.ModelFacts`), called `model`; a fact that is not known is no obstacle.
    `device_kinds` are the kinds of device among the workers, none where none has been seen; `adapters` counts, by method, the finished
    adapters on this base that it could build on.
    """
    capabilities = method.capabilities
    if device_kinds and not set(capabilities.devices) & set(device_kinds):
        return f"no worker of this site can run it: it needs {' or '.join(capabilities.devices)}"
    if task not in capabilities.tasks:
        return f"it does not train for the task {task}"
    if reason := _missing(capabilities.needs, task, facts, model):
        return reason
    there = sum(adapters.get(kind, 0) for kind in capabilities.adapters_of)
    if there < capabilities.adapters:
        kinds = " or ".join(capabilities.adapters_of)
        return f"it builds on at least {capabilities.adapters} finished adapters ({kinds}) of this base model, and there are {there}"
    return ""


def _missing(needs: Collection[Need], task: Task, facts: Mapping[str, Any], model: str) -> str:
    """What the base model lacks."""
    tasks = facts.get("tasks", TASKS)
    if task not in tasks:
        return f"{model} cannot be trained for the task {task}"
    if "biases" in needs and not facts.get("has_biases", True):
        return f"it trains the model's biases, and {model} has none"
    if "decoder" in needs and "causal_lm" not in tasks:
        return f"it needs a model that writes from left to right, which {model} does not"
    if "linear" in needs and facts.get("architecture") in _OTHER_LAYERS:
        return f"it takes plain linear layers, and those of {model} are of another kind (Conv1D)"
    return ""
