"""What a run asks of its task, phase by phase; `jobs.run` knows no task by name."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from jobs.data.split import spread
from jobs.data.token_cache import TokenCache
from jobs.data.tokens import EncodedRows
from jobs.events import NOTHING_MEASURED
from jobs.models.heads import Head
from jobs.spec import EvaluationSpec, RunSpec, TrainingSpec
from jobs.training.loss import DatasetLoss
from jobs.training.rowsets import EncodedSets
from jobs.training.running import Runner

Progress = Callable[[int, int], None]
# Of how a model is run, the data of `sample` events less `step model`.
Sampler = Callable[[Any], list[dict[str, Any]]]


class Rows(Protocol):
    """The rows of a run by use; `held_out_split` names those that base and tuned model are compared on (`test`, else `validation`)."""

    @property
    def held_out_split(self) -> str:
        """`test` or `validation`."""

    @property
    def held_out(self) -> Sequence[Mapping[str, Any]]:
        """The records of that split."""

    def encoded(self, spec: TrainingSpec, length_limit: int) -> EncodedSets:
        """All rows as tokens, cut at a length that the model can take. Raises `UserError("nothing_to_learn")`."""


@dataclass(frozen=True)
class Means:
    """What computing is done with: `dtype` of the arithmetic, `device` in torch's words."""

    dtype: torch.dtype
    device: str


@dataclass(frozen=True)
class Held:
    """The rows that models are compared on: `records` of the whole split, and the same as tokens."""

    records: Sequence[Mapping[str, Any]]
    rows: EncodedRows
    tokenizer: Any

    def only(self, chosen: Sequence[int]) -> Held:
        """The rows made of the records of these numbers alone. Records are numbered as they were, and tokens counted as of all rows."""
        kept, wanted = self.rows, set(chosen)
        places = [place for place, index in enumerate(kept.indices) if index in wanted]
        few = replace(kept, rows=[kept.rows[place] for place in places], indices=[kept.indices[place] for place in places])
        return replace(self, rows=few)


@dataclass(frozen=True)
class Answer:
    """What a model says of record number `index` of the held-out rows; `correct` is None where none is right or wrong. Less its question,
    the data of a `sample` event.
    """

    index: int
    answer: str
    expected: str
    correct: bool | None


@dataclass(frozen=True)
class Judged:
    """What was made of a model's answers: the `figures` that differ from `NOTHING_MEASURED`, and the answers."""

    figures: Mapping[str, Any]
    answers: Sequence[Answer]


def evaluation(judged: Judged, shown: Callable[[int], str], most: int, *, started: float, rows: int, tokens: int) -> dict[str, Any]:
    """What `Work.evaluate` returns, of answers of which at most `most` are kept as samples, evenly spread; `shown` gives the question of a
    record by its number, `started` is a reading of `time.monotonic`.
    """
    samples = [{"index": answer.index, "prompt": shown(answer.index), **asdict(answer)} for answer in spread(judged.answers, most)]
    sizes = {"rows": rows, "tokens": tokens, "seconds": time.monotonic() - started}
    return {**NOTHING_MEASURED, **judged.figures, **sizes, "samples": samples}


class Work(ABC):
    """One task. `writes`: its model answers in text, token by token, so that the general probe and perplexity mean something.

    An instance serves one run: `read` comes first, and what the task must know of the rows (the labels) is kept from then on.
    """

    writes = False
    needs_end = False

    @abstractmethod
    def read(self, spec: RunSpec, tokenizer: Any, *, architecture: str, cache: TokenCache, report: Callable[[int], None]) -> Rows:
        """The rows; `report` gets how many are read. Raises `UserError` for what cannot be used."""

    @abstractmethod
    def head(self, tokenizer: Any, seed: int) -> Head:
        """How the model is loaded for the rows that were read."""

    @abstractmethod
    def forward(self, model: Any, rows: Sequence[Any], means: Means, spec: RunSpec) -> tuple[Runner, list[str]]:
        """How the model is run, and what was found against the fast way, one sentence each."""

    @abstractmethod
    def figures(self, found: DatasetLoss) -> dict[str, Any]:
        """Of an `eval` event in the middle of the training: what differs from nulls and an empty `metrics`."""

    @abstractmethod
    def evaluate(self, runner: Any, held: Held, spec: EvaluationSpec, progress: Progress) -> dict[str, Any]:
        """The data of an `eval` event less `step epoch split model`, and `samples`: the data of `sample` events less `step model`.

        Called in the arithmetic of the run.
        """

    @abstractmethod
    def sampler(self, held: Held, spec: EvaluationSpec, most: int) -> Sampler | None:
        """What asks a model at most `most` of the questions whose answers `evaluate` gives as samples, and gives their data; None where
        there are none. Called in the arithmetic of the run.
        """

    @abstractmethod
    def compared(self, rows: Sequence[Any]) -> list[Any]:
        """Rows on which the logits of an exported model are compared, each cheap enough."""

    @abstractmethod
    def logits(self, model: Any, row: Any) -> Tensor:
        """float32 [places, classes] in host memory: what a model decides by on one of `compared`."""


def device_of(model: Any) -> torch.device:
    """Where a model's weights are."""
    found: torch.device = next(model.parameters()).device
    return found


def file_of(name: str) -> Path:
    """A data file of the spec. Raises `UserError("file_missing")`."""
    from jobs.errors import UserError

    file = Path(name)
    if not file.is_file():
        raise UserError("file_missing", path=file, where={"file": str(file)})
    return file
