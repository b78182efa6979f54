"""How long the rows of a file are in the tokens of a model, and where what is trained on begins: enough to say what any maximum cuts off.

At most `LOOKED_AT` rows are tokenised, evenly spread; the answer says how many of how many.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jobs.data import task_rows
from jobs.data.encoding import encode_batches
from jobs.data.rows import Record

LOOKED_AT = 10_000


def token_lengths(
    path: Path, rows: int, tokenizer: Any, *, loss_on: str = "completion", progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Of a written file with so many `rows`: `lengths` and `first` as [[tokens, rows], ...] in ascending order, where `first` is how long a
    row must be kept for its first trained token to stay (rows with none are counted in `untrained`), `tokens` and `trained_tokens` of the
    rows that were looked at, `looked_at` and `rows`.

    Raises `UserError("template_refused")`.
    """
    chosen = min(rows, LOOKED_AT)
    lengths: Counter[int] = Counter()
    first: Counter[int] = Counter()
    untrained = trained_tokens = done = 0
    for batch in encode_batches(_chosen(path, rows, chosen), tokenizer, loss_on):
        for row in batch:
            lengths[len(row.ids)] += 1
            trained_tokens += row.labels
            if row.trained.any():
                first[int(row.trained.argmax()) + 1] += 1
            else:
                untrained += 1
        done += len(batch)
        if progress:
            progress(done, chosen)
    return {
        "rows": rows,
        "looked_at": done,
        "lengths": sorted(lengths.items()),
        "first": sorted(first.items()),
        "untrained": untrained,
        "tokens": sum(length * count for length, count in lengths.items()),
        "trained_tokens": trained_tokens,
    }


def _chosen(path: Path, rows: int, count: int) -> Iterator[Record]:
    """`count` of the rows, evenly spread, those of other tasks as one text. Lines that were not chosen are not even parsed."""
    wanted = np.zeros(rows, dtype=np.bool_)
    wanted[np.arange(count) * rows // max(count, 1)] = True
    with path.open("rb") as file:
        for keep, line in zip(wanted.tolist(), file, strict=False):
            if keep:
                yield _as_text(json.loads(line))


def _as_text(record: Record) -> Record:
    parts = task_rows.parts(record)
    if parts is None:
        return record
    return {"text": "\n".join(part["content"] for part in parts if part["role"] != "answer")}
