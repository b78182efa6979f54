"""The rows of a run: which are trained on, which are held out, and both as token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.data.encoding import EncodedRows, Record, encode_batches, require_labels
from jobs.data.records import read_records
from jobs.data.split import split_indices
from jobs.data.token_cache import TokenCache, token_key
from jobs.data.tokens import TokenStore, cut_rows
from jobs.errors import UserError
from jobs.models.templates import FALLBACK_TEMPLATE
from jobs.spec import DataSpec, LossOn, TrainingSpec

# Called with the number of rows done.
Report = Callable[[int], None]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Rows `numbers` of a file, tokenised; the texts themselves are read again when they are asked for."""

    file: Path
    spec: DataSpec
    store: TokenStore
    numbers: Numbers

    def records(self) -> list[Record]:
        """The rows as they were read, in order."""
        wanted = set(self.numbers.tolist())
        return [record for number, record in enumerate(_read(self.file, self.spec)) if number in wanted]


@dataclass(frozen=True)
class RowSets:
    """Rows by use. `held_out` names those that base and tuned model are compared on: the test rows, else the validation rows."""

    train: Part
    validation: Part | None
    test: Part | None

    @property
    def held_out_split(self) -> str:
        """`test` or `validation`."""
        return "test" if self.test else "validation"

    @cached_property
    def held_out(self) -> list[Record]:
        """The rows of that split, read once."""
        part = self.test or self.validation
        return part.records() if part else []

    def encoded(self, spec: TrainingSpec, length_limit: int) -> EncodedSets:
        """All rows, cut at the length found for the training rows. Raises `UserError("nothing_to_learn")`."""
        train = _cut(self.train, spec.max_length, length_limit)
        require_labels(train)
        return EncodedSets(
            train,
            _cut(self.validation or _none(self.train), train.max_length, length_limit),
            _cut(self.test or _none(self.train), train.max_length, length_limit),
        )


@dataclass(frozen=True)
class EncodedSets:
    """The same as token ids, all cut at the length found for the training rows."""

    train: EncodedRows
    validation: EncodedRows
    test: EncodedRows

    def of(self, split: str) -> EncodedRows:
        """The rows of `test` or `validation`."""
        return self.test if split == "test" else self.validation


def tokenise_rows(
    spec: DataSpec, tokenizer: Any, *, model_folder: Path, loss_on: LossOn, seed: int, cache: TokenCache, report: Report
) -> RowSets:
    """Reads and tokenises the files of a run, or finds them in `cache`, and sets the validation rows aside.

    `tokenizer` was made from the files of `model_folder`; where it has no chat template and a row is a chat, it gets `FALLBACK_TEMPLATE`.
    Raises `UserError`: what reading refuses, `no_rows`, `template_refused`.
    """

    def store_of(name: str) -> TokenStore:
        key = token_key(
            _existing(Path(name)),
            mapping=spec.mapping,
            skip_bad_rows=spec.skip_bad_rows,
            loss_on=loss_on,
            tokenizer_folder=model_folder,
            fallback_template=FALLBACK_TEMPLATE,
        )
        store = cache.get(key) or _tokenise(Path(name), spec, tokenizer, loss_on=loss_on, key=key, cache=cache, report=report)
        if store.chats:
            _ensure_template(tokenizer)
        report(len(store))
        return store

    def whole(name: str | None) -> Part | None:
        return Part(Path(name), spec, store := store_of(name), np.arange(len(store))) if name else None

    train, test, validation = store_of(spec.train), whole(spec.test), whole(spec.validation)
    kept = np.arange(len(train))
    if not spec.validation:
        kept, held_out = (np.array(chosen, dtype=np.int64) for chosen in split_indices(len(train), spec.validation_share, seed))
        validation = Part(Path(spec.train), spec, train, held_out) if len(held_out) else None
    return RowSets(Part(Path(spec.train), spec, train, kept), validation, test)


def _tokenise(file: Path, spec: DataSpec, tokenizer: Any, *, loss_on: LossOn, key: str, cache: TokenCache, report: Report) -> TokenStore:
    chats = done = 0

    def records() -> Iterator[Record]:
        nonlocal chats, done
        for record in _read(file, spec):
            if "messages" in record:
                chats += 1
                _ensure_template(tokenizer)
            done += 1
            report(done)
            yield record
        if not done:
            raise UserError("no_rows", where={"file": str(file)})

    batches = encode_batches(records(), tokenizer, loss_on)
    return cache.put(key, batches, vocabulary=len(tokenizer), chats=lambda: chats > 0)


def _ensure_template(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        tokenizer.chat_template = FALLBACK_TEMPLATE


def _read(file: Path, spec: DataSpec) -> Iterator[Record]:
    return (record for _, record in read_records(file, spec.mapping, skip_bad_rows=spec.skip_bad_rows))


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise UserError("file_missing", path=file, where={"file": str(file)})
    return file


def _none(part: Part) -> Part:
    return Part(part.file, part.spec, part.store, np.arange(0))


def _cut(part: Part, max_length: int | None, length_limit: int) -> EncodedRows:
    return cut_rows(part.store, part.numbers, max_length=max_length, length_limit=length_limit)
