"""The records of a file, for training: what `python -m jobs train` reads, from a user's own file or from a dataset version."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from jobs.data.convert import to_record
from jobs.data.formats import check_mapping, recognise
from jobs.data.rows import Problem, Record, Row
from jobs.data.sources import HEAD_ROWS, Source, open_rows
from jobs.data.task_recognition import recognise_for
from jobs.data.task_rows import LAYOUTS, for_task
from jobs.errors import GraftError, UserError
from jobs.spec import Mapping, Task


def mapping_for(source: Source, mapping: Mapping | None, *, optional: bool = True, task: Task | None = None) -> Mapping:
    """The mapping to read `source` by: the one given, checked, or the one recognised from its first rows. Raises `UserError`.

    `optional`: the columns of fields that a layout may lack must be there too, as in the file that the mapping was made for. `task`: the
    layout must be one that serves it (None: any layout that is known).
    """
    try:
        if mapping is not None:
            check_mapping(mapping, source.columns, optional=optional)
            if task and mapping.format not in LAYOUTS[task]:
                raise UserError("mapping_invalid", reason=f"rows in the layout {mapping.format} do not serve the task {task}")
            return mapping
        rows = [item.value for item in islice(source, HEAD_ROWS) if isinstance(item, Row)]
        return recognise(source.columns, rows) if task in (None, "causal_lm") else recognise_for(task, source.columns, rows)
    except GraftError as error:
        error.where.setdefault("file", str(source.path))
        raise


def read_records(
    path: Path, mapping: Mapping | None, *, skip_bad_rows: bool = False, task: Task = "causal_lm"
) -> Iterator[tuple[int, Record]]:
    """(line, record) of each row in order, with the record in one of the three shapes of `jobs.data.convert`, or in the one of its task
    (`jobs.data.task_rows`).

    Raises `UserError` where the file or the mapping cannot be used and, unless `skip_bad_rows`, at the first bad row, with its line.
    """
    source = open_rows(path)
    mapping = mapping_for(source, mapping, optional=False, task=task)
    for item in source:
        record = to_record(item, mapping) if isinstance(item, Row) else item
        if isinstance(item, Row) and not isinstance(record, Problem):
            record = for_task(record, task, item)
        if not isinstance(record, Problem):
            yield item.line, record
        elif not skip_bad_rows:
            raise record.to_error(str(path))
