"""A finished model of a task other than writing, asked rows of a file: what a run measures on its held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.data.records import read_records
from jobs.errors import UserError
from jobs.models.architectures import architecture_of
from jobs.models.heads import task_of
from jobs.models.opened import Opened
from jobs.spec import EvaluationSpec, Mapping, TrainingSpec
from jobs.tasks.forward import TaskForward
from jobs.tasks.reading import HeadWork, Record, Source, TaskRows
from jobs.tasks.registry import make_work
from jobs.tasks.work import Held, Progress


def measure(
    opened: Opened, folder: Path, data: Path, mapping: Mapping | None, spec: EvaluationSpec, *, length_limit: int, progress: Progress
) -> dict[str, Any]:
    """The data of an `eval` event less `step epoch split model`, and `samples`, of all rows of `data`; `folder` is the base model's.

    Raises `UserError` for rows that cannot be used, or that are not of the model's task or labels.
    """
    work = make_work(task_of(opened.head, opened.model.config))
    assert isinstance(work, HeadWork)  # noqa: S101 - causal models are measured by `jobs.evaluation`
    rows = list(read_records(data, mapping, task=work.task))
    if not rows:
        raise UserError("no_rows", where={"file": str(data)})
    work.recall(Source(data, rows), opened.model.config, opened.tokenizer, architecture_of(folder))
    records: list[Record] = [record for _, record in rows]
    encoded = TaskRows(work, opened.tokenizer, records, [], []).encoded(TrainingSpec(), length_limit).train
    runner = TaskForward(opened.model, opened.dtype, opened.device, work.kind())
    with opened.computing():
        return work.evaluate(runner, Held(records, encoded, opened.tokenizer), spec, progress)
