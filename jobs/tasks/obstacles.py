"""Why a task cannot be trained for, before anything is loaded (free of torch): one answer for form, command line and API."""

from __future__ import annotations

from collections.abc import Mapping as Facts
from typing import Any

from jobs.data.formats import FIELDS
from jobs.data.task_rows import LAYOUTS
from jobs.spec import TASKS, Mapping, Task
from jobs.tasks.registry import get_task

MOST_LABELS = 1000
# Of layouts for writing that serve another task as well: the field without which they do not.
_NEEDED = {"sequence_classification": "label", "multiple_choice": "choices"}


def model_obstacle(task: Task, facts: Facts[str, Any], model: str) -> str:
    """One clause that says why the base model called `model` does not serve the task; empty where nothing that is known speaks against it.

    `facts` are those of `jobs.models.inspect.ModelFacts`; a fact that is not known is no obstacle.
    """
    tasks = facts.get("tasks", TASKS)
    if task in tasks:
        return ""
    return f"{model} can be trained for: {', '.join(get_task(known).name.lower() for known in tasks)}"


def rows_obstacle(task: Task, mapping: Mapping | None, labels: int | None = None) -> str:
    """The same of rows that were mapped so (None: unknown), with so many different `labels` (None: unknown or none)."""
    if mapping is None:
        return ""
    if mapping.format not in LAYOUTS[task]:
        wanted = "chats, prompts with completions, or plain text" if task == "causal_lm" else ", ".join(get_task(task).required_columns)
        return f"it needs rows of {wanted}; those of the dataset hold {', '.join(FIELDS[mapping.format][0])}"
    field = _NEEDED.get(task, "")
    if field in FIELDS[mapping.format][1] and not mapping.columns.get(field):
        return f"the rows of the dataset have no column for '{field}'"
    if task == "sequence_classification" and labels is not None and not 2 <= labels <= MOST_LABELS:
        return f"it needs from 2 to {MOST_LABELS:,} different labels, and the dataset has {labels:,}"
    return ""
