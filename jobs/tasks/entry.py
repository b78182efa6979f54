"""What the catalogue says of a task: forms and pages are drawn from it. Free of torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jobs.data.formats import FIELDS
from jobs.data.task_rows import LAYOUTS
from jobs.spec import Format, Task


@dataclass(frozen=True)
class Metric:
    """A figure of an `eval` event: `id` is its key, in `metrics` or (`loss`, `exact_match` and their like) beside it.

    `share`: it is from 0 to 1, or from -1 to 1, and reads well as a percentage; `lower_is_better` of losses and errors.
    """

    id: str
    name: str
    help: str
    share: bool = True
    lower_is_better: bool = False


@dataclass(frozen=True)
class TaskEntry:
    """One task: `help` is a sentence; `metrics` are those of the held-out rows, the one to judge by first; `work` is an import string of
    the class that does it (`jobs.tasks.work.Work`).
    """

    id: Task
    name: str
    help: str
    metrics: tuple[Metric, ...]
    work: str

    @property
    def layouts(self) -> tuple[Format, ...]:
        """The layouts whose rows serve it, its own first."""
        return LAYOUTS[self.id]

    @property
    def required_columns(self) -> tuple[str, ...]:
        """The fields that its own layout needs."""
        return FIELDS[self.layouts[0]][0]

    @property
    def optional_columns(self) -> tuple[str, ...]:
        """The fields that its own layout may have."""
        return FIELDS[self.layouts[0]][1]

    def to_json(self) -> dict[str, Any]:
        """The entry as a page reads it."""
        columns = {"layouts": self.layouts, "required_columns": self.required_columns, "optional_columns": self.optional_columns}
        return {**asdict(self), **columns}
