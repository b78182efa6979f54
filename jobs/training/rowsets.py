"""The rows of a run: which are trained on, which are held out, and both as token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.data.encoding import EncodedRows, Record, encode_records, require_labels
from jobs.data.records import read_records
from jobs.data.split import split_indices
from jobs.errors import UserError
from jobs.spec import DataSpec, TrainingSpec

# Called with the number of rows done.
Report = Callable[[int], None]


@dataclass(frozen=True)
class RowSets:
    """Records by use. `held_out` names those that base and tuned model are compared on: the test rows, else the validation rows."""

    train: list[Record]
    validation: list[Record]
    test: list[Record]

    @property
    def held_out_split(self) -> str:
        """`test` or `validation`."""
        return "test" if self.test else "validation"

    @property
    def held_out(self) -> list[Record]:
        """The rows of that split."""
        return self.test or self.validation

    @property
    def chats(self) -> bool:
        """Whether any row is a chat."""
        return any("messages" in record for records in (self.train, self.validation, self.test) for record in records)


@dataclass(frozen=True)
class EncodedSets:
    """The same as token ids, all cut at the length found for the training rows."""

    train: EncodedRows
    validation: EncodedRows
    test: EncodedRows

    def of(self, split: str) -> EncodedRows:
        """The rows of `test` or `validation`."""
        return self.test if split == "test" else self.validation


def load_rows(spec: DataSpec, seed: int, report: Report) -> RowSets:
    """Reads the files of a run and sets the validation rows aside. Raises `UserError`."""
    train = _read(spec.train, spec, report)
    test = _read(spec.test, spec, report) if spec.test else []
    if spec.validation:
        return RowSets(train, _read(spec.validation, spec, report), test)
    kept, held_out = split_indices(len(train), spec.validation_share, seed)
    return RowSets([train[index] for index in kept], [train[index] for index in held_out], test)


def encode_rows(rows: RowSets, tokenizer: Any, spec: TrainingSpec, length_limit: int, report: Report) -> EncodedSets:
    """Encodes all rows. Raises `UserError`: `nothing_to_learn`, `template_refused`."""

    def encode(records: Iterable[Record], max_length: int | None) -> EncodedRows:
        return encode_records(records, tokenizer, loss_on=spec.loss_on, max_length=max_length, length_limit=length_limit, progress=report)

    train = encode(rows.train, spec.max_length)
    require_labels(train)
    return EncodedSets(train, encode(rows.validation, train.max_length), encode(rows.test, train.max_length))


def _read(name: str, spec: DataSpec, report: Report) -> list[Record]:
    records: list[Record] = []
    for _, record in read_records(Path(name), spec.mapping, skip_bad_rows=spec.skip_bad_rows):
        records.append(record)
        report(len(records))
    if not records:
        raise UserError("no_rows", where={"file": name})
    return records
