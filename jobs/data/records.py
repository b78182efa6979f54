"""The records of a file, for training: what `python -m jobs train` reads, from a user's own file or from a dataset version."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from jobs.data.convert import to_record
from jobs.data.formats import check_mapping, recognise
from jobs.data.rows import Problem, Record, Row
from jobs.data.sources import HEAD_ROWS, Source, open_rows
from jobs.errors import GraftError
from jobs.spec import Mapping


def mapping_for(source: Source, mapping: Mapping | None, *, optional: bool = True) -> Mapping:
    """The mapping to read `source` by: the one given, checked, or the one recognised from its first rows. Raises `UserError`.

    `optional`: the columns of fields that a layout may lack must be there too, as in the file that the mapping was made for.
    """
    try:
        if mapping is not None:
            check_mapping(mapping, source.columns, optional=optional)
            return mapping
        rows = [item.value for item in islice(source, HEAD_ROWS) if isinstance(item, Row)]
        return recognise(source.columns, rows)
    except GraftError as error:
        error.where.setdefault("file", str(source.path))
        raise


def read_records(path: Path, mapping: Mapping | None, *, skip_bad_rows: bool = False) -> Iterator[tuple[int, Record]]:
    """(line, record) of each row in order, with the record in one of the three shapes of `jobs.data.convert`.

    Raises `UserError` where the file or the mapping cannot be used and, unless `skip_bad_rows`, at the first bad row, with its line.
    """
    source = open_rows(path)
    mapping = mapping_for(source, mapping, optional=False)
    for item in source:
        record = to_record(item, mapping) if isinstance(item, Row) else item
        if not isinstance(record, Problem):
            yield item.line, record
        elif not skip_bad_rows:
            raise record.to_error(str(path))
