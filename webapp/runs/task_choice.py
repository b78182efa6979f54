"""The tasks that a run may train for, as the form shows them: which base model and which dataset serve each, and why others do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jobs.spec import Task
from jobs.tasks.entry import TaskEntry
from jobs.tasks.obstacles import model_obstacle
from jobs.tasks.registry import ENTRIES
from webapp.catalog.models import BaseModel
from webapp.datasets.mapping import unfit_rows
from webapp.datasets.models import DatasetVersion


@dataclass(frozen=True)
class TaskCard:
    """A task: its entry, whether it is chosen, and why it does not fit ("" where it does)."""

    entry: TaskEntry
    chosen: bool
    obstacle: str


def obstacle_of(task: Task, model: BaseModel | None, version: DatasetVersion | None) -> str:
    """One clause that says why base model or dataset do not serve the task; empty where they do, or are not known."""
    unfit = model_obstacle(task, model.facts, model.name) if model else ""
    return unfit or (unfit_rows(task, version) if version else "")


def first_fitting(model: BaseModel | None, version: DatasetVersion | None) -> Task:
    """The first task, in the order of the catalogue, that both serve; writing where they serve none together."""
    return next((entry.id for entry in ENTRIES if not obstacle_of(entry.id, model, version)), "causal_lm")


def obstacles_of(models: Iterable[BaseModel], versions: Iterable[DatasetVersion]) -> dict[str, dict[str, dict[str, str]]]:
    """For the form's script: why tasks do not fit, by the field `base_model` or `dataset_version`, the row's id, and the task."""

    def reasons(model: BaseModel | None, version: DatasetVersion | None) -> dict[str, str]:
        return {entry.id: obstacle_of(entry.id, model, version) for entry in ENTRIES}

    return {
        "base_model": {str(model.pk): reasons(model, None) for model in models},
        "dataset_version": {str(version.pk): reasons(None, version) for version in versions},
    }
