"""Parquet as rows: batch by batch, with a running count of bytes, since the sizes in a Parquet footer cannot be trusted."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.data.files import size_words
from jobs.data.rows import Limits, Row
from jobs.errors import UserError

BATCH_ROWS = 256


def parquet_columns(path: Path, limits: Limits) -> tuple[str, ...]:
    """The names of the columns. Raises `UserError` where the file cannot be opened or has too many."""
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=False) as file:
            names = tuple(str(name) for name in file.schema_arrow.names)
            leaves = len(file.schema.names)
    except (pyarrow.ArrowException, OSError, ValueError) as failure:
        raise _damaged(path, failure) from None
    if max(len(names), leaves) > limits.columns:
        raise UserError("columns_too_many", found=max(len(names), leaves), limit=limits.columns, where={"file": str(path)})
    return names


def read_parquet(path: Path, limits: Limits) -> Iterator[Row]:
    """The rows, numbered from 1. Dates and decimals become text, NaN (by which pandas
    writes an empty cell) becomes null; binary values stay `bytes`, which no mapping takes.
    """
    import pyarrow.parquet

    number, size, packed = 0, 0, path.stat().st_size
    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=False) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                for value in batch.to_pylist():
                    # What Arrow says of a batch counts a text once that stands in all its rows.
                    size += _size(value)
                    _check(size, packed, limits, path)
                    number += 1
                    yield Row(number, _plain(value), "row")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as failure:
        raise _damaged(path, failure) from None


def _check(size: int, packed: int, limits: Limits, path: Path) -> None:
    if size > limits.unpacked_bytes:
        raise UserError("file_too_large", limit=size_words(limits.unpacked_bytes), where={"file": str(path)})
    if size > max(limits.parquet_ratio_from_bytes, limits.parquet_ratio * packed):
        raise UserError("file_ratio", limit=limits.parquet_ratio, where={"file": str(path)})


def _size(item: Any) -> int:
    """Characters of all texts of a value, and eight for anything else."""
    if isinstance(item, str | bytes):
        return len(item)
    if isinstance(item, dict):
        return sum(_size(part) for part in item.values())
    if isinstance(item, list | tuple):
        return sum(map(_size, item))
    return 8


def _damaged(path: Path, failure: Exception) -> UserError:
    reason = str(failure).strip().split("\n")[0].rstrip(".")[:200] or type(failure).__name__
    return UserError("file_damaged", what="Parquet", reason=reason, where={"file": str(path)})


def _plain(item: Any) -> Any:
    if isinstance(item, float):
        return item if math.isfinite(item) else None
    if isinstance(item, dict):
        return {str(name): _plain(part) for name, part in item.items()}
    if isinstance(item, list | tuple):
        return [_plain(part) for part in item]
    if isinstance(item, datetime.date | datetime.time):
        return item.isoformat()
    if isinstance(item, datetime.timedelta | decimal.Decimal):
        return str(item)
    return item
