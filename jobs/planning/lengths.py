"""How long a run's rows are, before they are tokenised: from their characters. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from jobs.data.records import read_records
from jobs.planning.batches import RowLengths
from jobs.spec import RunSpec

# Rows that are looked at; the others are counted.
LOOKED_AT = 2000
# Characters of a token, as the tokenizers of today's models make of English; other languages and code have fewer.
CHARACTERS_PER_TOKEN = 4.0
# Tokens that a chat template puts around each message, and an end of sequence around a text.
TOKENS_PER_MESSAGE = 5
TOKENS_PER_TEXT = 1


def row_lengths(spec: RunSpec, count: int | None = None) -> RowLengths:
    """The lengths of the training rows, estimated from their characters; those of the first `LOOKED_AT` stand for all. `count` says how
    many rows the file has, where that is known; else they are counted.

    Raises `UserError` where the file cannot be read as the spec says.
    """
    records = (record for _, record in read_records(Path(spec.data.train), spec.data.mapping, skip_bad_rows=spec.data.skip_bad_rows))
    sizes = [_tokens(record) for record in islice(records, LOOKED_AT)]
    rows = len(sizes) + sum(1 for _ in records) if count is None else count
    if not sizes:
        return RowLengths.unknown(spec.training)
    trained = sum(taught for _, taught in sizes) / sum(whole for whole, _ in sizes)
    share = 1.0 if spec.training.loss_on == "all" else trained
    held_out = 0 if spec.data.validation else round(rows * spec.data.validation_share)
    return RowLengths.of([whole for whole, _ in sizes], rows=max(1, rows - held_out), label_share=share)


def count_labels(spec: RunSpec) -> int:
    """How many labels the training rows have; 2 where the task has none of its own. Raises as `row_lengths`."""
    if spec.task != "sequence_classification":
        return 2
    records = read_records(Path(spec.data.train), spec.data.mapping, skip_bad_rows=spec.data.skip_bad_rows)
    return len({str(record["label"]) for _, record in records if "label" in record}) or 2


def _tokens(record: Mapping[str, Any]) -> tuple[int, int]:
    """(tokens of the row, tokens of its answers)."""
    if "messages" in record:
        sizes = [(message["role"], _length(message["content"]) + TOKENS_PER_MESSAGE) for message in record["messages"]]
        return sum(size for _, size in sizes), sum(size for role, size in sizes if role == "assistant")
    if "completion" in record:
        answer = _length(record["completion"]) + TOKENS_PER_TEXT
        return _length(record["prompt"]) + answer, answer
    texts = [value for value in record.values() if isinstance(value, str)]
    texts += [text for value in record.values() if isinstance(value, list) for text in value if isinstance(text, str)]
    whole = sum(map(_length, texts)) + TOKENS_PER_TEXT
    return whole, whole


def _length(text: str) -> int:
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN))
