"""The rows of a task with a head: read whole into memory, split as all rows are, tokenised with the tokenizer's own frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from jobs.data.records import read_records
from jobs.data.split import split_indices, spread
from jobs.data.token_cache import TokenCache
from jobs.data.tokens import LENGTH_CAP, LENGTH_MULTIPLE, EncodedRows, Row
from jobs.errors import UserError
from jobs.spec import EvaluationSpec, RunSpec, Task, TrainingSpec
from jobs.tasks.forward import Framing, Kind, TaskForward, Text
from jobs.tasks.work import Held, Means, Sampler, Work, device_of, file_of
from jobs.training.rowsets import EncodedSets

Record = Mapping[str, Any]
Numbered = tuple[int, Record]


@dataclass(frozen=True)
class Source:
    """A data file, and its good rows as (line, record)."""

    file: Path
    rows: Sequence[Numbered]


@dataclass(frozen=True)
class Made:
    """Rows of one split: `rows[i]` is (a part of) record number `indices[i]`; `cut` records were shortened."""

    rows: list[Any]
    indices: list[int]
    cut: int


@dataclass(frozen=True)
class TaskRows:
    """Records by use, and how they become rows (a `jobs.tasks.work.Rows`)."""

    work: HeadWork
    tokenizer: Any
    train: list[Record]
    validation: list[Record]
    test: list[Record]

    @property
    def held_out_split(self) -> str:
        """`test` or `validation`."""
        return "test" if self.test else "validation"

    @property
    def held_out(self) -> list[Record]:
        """The records of that split."""
        return self.test or self.validation

    def encoded(self, spec: TrainingSpec, length_limit: int) -> EncodedSets:
        """All rows as tokens, at most as long as most training rows, the spec and the model allow."""
        limit = min(spec.max_length or self.work.natural_length(self.train, self.tokenizer), length_limit)
        train, validation, test = (self._rows(records, limit) for records in (self.train, self.validation, self.test))
        if not train.rows:
            raise UserError("nothing_to_learn", max_length=limit)
        return EncodedSets(train, validation, test)

    def _rows(self, records: list[Record], limit: int) -> EncodedRows:
        made = self.work.encode(records, self.tokenizer, limit)
        tokens, labels = sum(len(row.ids) for row in made.rows), sum(row.labels for row in made.rows)
        return EncodedRows(made.rows, made.indices, limit, made.cut, len(records) - len(set(made.indices)), tokens, labels)


class HeadWork(Work):
    """What tasks whose rows are read into memory have in common. `task` is their id."""

    task: Task

    def read(self, spec: RunSpec, tokenizer: Any, *, architecture: str, cache: TokenCache, report: Callable[[int], None]) -> TaskRows:
        """The rows of all files; the split by seed is the one of every task."""
        del cache  # tokens of such rows are few: they are made anew

        def source(name: str | None) -> Source:
            if not name:
                return Source(Path(), [])
            file, data = file_of(name), spec.data
            rows = list(read_records(file, data.mapping, skip_bad_rows=data.skip_bad_rows, task=self.task))
            if not rows:
                raise UserError("no_rows", where={"file": str(file)})
            report(len(rows))
            return Source(file, rows)

        train, validation, test = source(spec.data.train), source(spec.data.validation), source(spec.data.test)
        self.learn(train, [validation, test], tokenizer, architecture)
        records = [record for _, record in train.rows]
        held_out = [record for _, record in validation.rows]
        if not spec.data.validation:
            kept, aside = split_indices(len(records), spec.data.validation_share, spec.seed)
            records, held_out = [records[index] for index in kept], [records[index] for index in aside]
        return TaskRows(self, tokenizer, records, held_out, [record for _, record in test.rows])

    def learn(self, train: Source, held_out: Sequence[Source], tokenizer: Any, architecture: str) -> None:
        """Takes from the rows and the model what the task must know later. Raises `UserError` where a held-out row does not fit."""
        from jobs.models.architectures import is_encoder

        self.framing = Framing.of(tokenizer, causal=not is_encoder(architecture))

    def recall(self, rows: Source, config: Any, tokenizer: Any, architecture: str) -> None:
        """Takes from the config of a finished model, and the rows that it is asked, what `learn` took from the training rows.

        Raises `UserError` where a row does not fit the model.
        """
        del config
        self.learn(rows, [], tokenizer, architecture)

    @abstractmethod
    def kind(self) -> Kind:
        """How rows are laid out and judged."""

    def forward(self, model: Any, rows: Sequence[Any], means: Means, spec: RunSpec) -> tuple[TaskForward, list[str]]:
        """Padded batches."""
        del rows, spec
        return TaskForward(model, means.dtype, means.device, self.kind()), []

    def asked(self, held: Held, spec: EvaluationSpec) -> list[int]:
        """The numbers of the records that `evaluate` gets an answer to, in order: of all that have a row."""
        del spec
        return list(dict.fromkeys(held.rows.indices))

    def sampler(self, held: Held, spec: EvaluationSpec, most: int) -> Sampler | None:
        """Evaluates the rows of some records alone."""
        few = held.only(spread(spread(self.asked(held, spec), spec.samples), most))
        return (lambda runner: list(self.evaluate(runner, few, spec, lambda *_: None)["samples"])) if few.rows.rows else None

    def logits(self, model: Any, row: Row) -> Tensor:
        """What the kind makes of the model's outputs on one row."""
        kind = self.kind()
        laid = kind.lay([row]).to(str(device_of(model)))
        return kind.logits(model(**laid.inputs), laid)[0].cpu()

    @abstractmethod
    def encode(self, records: Sequence[Record], tokenizer: Any, limit: int) -> Made:
        """Records as rows of at most `limit` tokens."""

    @abstractmethod
    def natural_length(self, records: Sequence[Record], tokenizer: Any) -> int:
        """The length to cut at where nobody has said so."""

    def compared(self, rows: Sequence[Row]) -> list[Row]:
        """Some of the rows, whole."""
        return list(rows)


def covering(lengths: Sequence[int]) -> int:
    """The 99th percentile of the lengths, rounded up to a multiple of 64, at most 4096, as for rows of writing."""
    percentile = int(np.ceil(np.percentile(lengths, 99))) if len(lengths) else 1
    return min(LENGTH_CAP, -(-percentile // LENGTH_MULTIPLE) * LENGTH_MULTIPLE)


def frames_pairs(tokenizer: Any) -> bool:
    """Whether the tokenizer puts something between the texts of a pair."""
    return int(tokenizer.num_special_tokens_to_add(pair=True)) > int(tokenizer.num_special_tokens_to_add(pair=False))


def tokenise(tokenizer: Any, texts: Sequence[str], seconds: Sequence[str] | None, limit: int | None = None) -> list[Text]:
    """Texts, or pairs, in the tokenizer's frame; cut to `limit` tokens, of a pair the longer one first.

    Where the tokenizer has no frame for pairs, an empty line stands between the two.
    """
    if seconds is not None and not frames_pairs(tokenizer):
        texts, seconds = [f"{first}\n\n{second}" for first, second in zip(texts, seconds, strict=True)], None
    if not texts:
        return []
    found = tokenizer(
        list(texts), list(seconds) if seconds is not None else None, truncation="longest_first" if limit else False, max_length=limit,
        return_token_type_ids=True, return_attention_mask=False, verbose=False,
    )  # fmt: skip
    pairs = zip(found["input_ids"], found["token_type_ids"], strict=True)
    return [Text(np.array(ids, dtype=np.int32), np.array(types, dtype=np.int32)) for ids, types in pairs]


def framed(tokenizer: Any, records: Sequence[Record], limit: int | None = None) -> list[Text]:
    """The texts of records with `text` and perhaps `text_b`, which all of a file's rows have or none."""
    pairs = bool(records) and "text_b" in records[0]
    return tokenise(tokenizer, [record["text"] for record in records], [record["text_b"] for record in records] if pairs else None, limit)


def cut_count(whole: Sequence[Text], cut: Sequence[Text]) -> int:
    """How many of the texts were shortened."""
    return sum(len(before.ids) > len(after.ids) for before, after in zip(whole, cut, strict=True))
