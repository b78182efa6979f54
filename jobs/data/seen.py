"""A row as the model sees it, for a page: its text cut where what is trained on begins and ends, and its tokens with their ids.

Rows of tasks other than writing are no one text: each of their parts is tokenised by itself, and what is learned is a part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jobs.data import task_rows
from jobs.data.encoding import SeenRow, see_row
from jobs.data.rows import Record
from jobs.errors import UserError

# What one page shows of a row; longer ones say how long they are.
SHOWN_TOKENS = 4096
SHOWN_RAW = 40_000


def written_rows(path: Path, *, start: int = 0) -> Iterator[Record]:
    """The records of a file that a validation wrote, from number `start` (from 0) on. Lines before it are passed over unread."""
    with path.open("rb") as file:
        for line in islice(file, start, None):
            yield json.loads(line)


def see(path: Path, number: int, tokenizer: Any, *, loss_on: str = "completion", max_length: int | None = None) -> dict[str, Any]:
    """Row `number` (from 0) of a written file: `raw` (its JSON), `pieces`, `tokens`, and counts of them.

    A piece has `text`, `trained` and `cut` (beyond `max_length` tokens); a token `id`, `text`, `trained`, `cut`, and `added` where no
    character stands for it. Raises `UserError`: `row_unknown`, `template_refused`.
    """
    record = next(written_rows(path, start=number), None)
    if record is None:
        raise UserError("row_unknown", number=number + 1)
    raw = json.dumps(record, ensure_ascii=False, indent=2)
    seen = {"raw": raw[:SHOWN_RAW], "raw_cut": len(raw) > SHOWN_RAW, "label": record.get("label"), "task": False}
    if (parts := task_rows.parts(record)) is not None:
        return seen | {"task": True} | _parts_seen(parts, tokenizer)
    return seen | _row_seen(see_row(record, tokenizer, loss_on), tokenizer, max_length)


def _row_seen(row: SeenRow, tokenizer: Any, max_length: int | None) -> dict[str, Any]:
    count = len(row.encoded.ids)
    limit = min(max_length or count, count)
    tokens = list(islice(_tokens(row, tokenizer, limit), SHOWN_TOKENS))
    return {
        "pieces": _pieces(row, tokenizer, limit),
        "tokens": tokens,
        "token_count": count,
        "trained_count": row.encoded.labels,
        "kept_count": limit,
        "kept_trained": int(np.count_nonzero(row.encoded.trained[:limit])),
    }


def _tokens(row: SeenRow, tokenizer: Any, limit: int) -> Iterator[dict[str, Any]]:
    backend = tokenizer.backend_tokenizer
    for place, (number, (start, end)) in enumerate(zip(row.encoded.ids.tolist(), row.offsets.tolist(), strict=True)):
        added = start == end
        text = (backend.id_to_token(number) or "") if added else row.text[start:end]
        yield {"id": number, "text": text, "trained": bool(row.encoded.trained[place]), "cut": place >= limit, "added": added}


def _pieces(row: SeenRow, tokenizer: Any, limit: int) -> list[dict[str, Any]]:
    """The text cut where marks change. A character belongs to the last token that holds it; one that no token holds goes with its left."""
    marks = np.zeros(len(row.text), dtype=np.int8)
    last = 0
    for place, (start, end) in enumerate(row.offsets.tolist()):
        if end > start:
            mark = int(row.encoded.trained[place]) + 2 * (place >= limit)
            marks[last:start] = marks[last - 1] if last else mark & 2
            marks[start:end] = mark
            last = max(last, end)
    marks[last:] = marks[last - 1] if last else 0
    edges = [0, *(np.flatnonzero(np.diff(marks)) + 1).tolist(), len(row.text)]
    pieces = [
        {"text": row.text[start:end], "trained": bool(marks[start] & 1), "cut": bool(marks[start] & 2)}
        for start, end in pairwise(edges)
        if end > start
    ]
    return [*pieces, *_end(row, tokenizer, limit)]


def _end(row: SeenRow, tokenizer: Any, limit: int) -> list[dict[str, Any]]:
    """The end-of-sequence token, where one was put after the text."""
    place = len(row.encoded.ids) - 1
    if place < 0 or row.encoded.ids[place] != tokenizer.eos_token_id or row.offsets[place, 0] != row.offsets[place, 1]:
        return []
    return [{"text": tokenizer.eos_token, "trained": bool(row.encoded.trained[place]), "cut": place >= limit}]


def _parts_seen(parts: list[dict[str, Any]], tokenizer: Any) -> dict[str, Any]:
    """Each part by itself; `role` says what it is."""
    pieces: list[dict[str, Any]] = []
    tokens: list[dict[str, Any]] = []
    for part in parts:
        trained = bool(part["trained"])
        pieces.append({"role": part["role"], "text": part["content"], "trained": trained, "cut": False})
        encoding = tokenizer.backend_tokenizer.encode(part["content"], add_special_tokens=False)
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            tokens.append({"id": number, "text": part["content"][start:end], "trained": trained, "cut": False, "added": start == end})
    learned = sum(token["trained"] for token in tokens)
    return {
        "pieces": pieces, "tokens": tokens[:SHOWN_TOKENS], "token_count": len(tokens), "trained_count": learned,
        "kept_count": len(tokens), "kept_trained": learned,
    }  # fmt: skip
