"""Multiple choice by encoders: each choice is read behind its question, and the head gives it a logit among its fellows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from jobs.evaluation.metrics import accuracy
from jobs.models.heads import Head
from jobs.spec import Task
from jobs.tasks.forward import Framing, Laid, Text, text_inputs
from jobs.tasks.judging import JudgingWork
from jobs.tasks.reading import Made, Record, covering, cut_count, tokenise
from jobs.tasks.work import Answer, Held, Judged
from jobs.training.loss import DatasetLoss


@dataclass(frozen=True)
class ChoiceRow:
    """The texts of a question, one for each choice, and the right one's number."""

    texts: tuple[Text, ...]
    answer: int

    @property
    def ids(self) -> NDArray[np.int32]:
        """int32 [length]: the tokens of all its texts."""
        return np.concatenate([text.ids for text in self.texts])

    @property
    def labels(self) -> int:
        """One."""
        return 1

    @property
    def content(self) -> bytes:
        """Tokens, where each text ends, and the answer."""
        lengths = np.array([*(len(text.ids) for text in self.texts), self.answer], dtype=np.int32)
        return self.ids.tobytes() + lengths.tobytes()


@dataclass(frozen=True)
class ChoiceKind:
    """Choices side by side, [rows, choices, longest]; a row with fewer repeats its first, left out of all that is made of the logits."""

    framing: Framing

    def lay(self, rows: Sequence[ChoiceRow]) -> Laid:
        """Every choice of every row as a text."""
        most = max(len(row.texts) for row in rows)
        texts = [text for row in rows for text in (*row.texts, *[row.texts[0]] * (most - len(row.texts)))]
        inputs = {name: tensor.view(len(rows), most, -1) for name, tensor in text_inputs(texts, self.framing).items()}
        # Second column: how many choices there are.
        targets = torch.tensor([[row.answer, len(row.texts)] for row in rows])
        return Laid(inputs, targets, sum(len(row.ids) for row in rows))

    def logits(self, outputs: Any, laid: Laid) -> list[Tensor]:
        """[1, choices] for each row."""
        counts = laid.targets[:, 1].tolist()
        return [row[None, :count] for row, count in zip(outputs.logits.float(), counts, strict=True)]

    def loss(self, outputs: Any, laid: Laid) -> Tensor:
        """Cross-entropy over a row's own choices."""
        return functional.cross_entropy(_own(outputs, laid), laid.targets[:, 0], reduction="sum")

    def hits(self, outputs: Any, laid: Laid) -> int:
        """How many right choices were found."""
        return int((_own(outputs, laid).argmax(-1) == laid.targets[:, 0]).sum())


def _own(outputs: Any, laid: Laid) -> Tensor:
    """float32 [rows, choices], minus infinity where a row has no such choice."""
    logits: Tensor = outputs.logits.float()
    return logits.masked_fill(torch.arange(logits.shape[1], device=logits.device) >= laid.targets[:, 1:], -torch.inf)


class MultipleChoice(JudgingWork):
    """One row a question."""

    task: Task = "multiple_choice"

    def encode(self, records: Sequence[Record], tokenizer: Any, limit: int) -> Made:
        """Each choice behind its question (and the text before it)."""
        whole, cut = _texts(records, tokenizer), _texts(records, tokenizer, limit)
        rows, place = [], 0
        for record in records:
            count = len(record["choices"])
            rows.append(ChoiceRow(tuple(cut[place : place + count]), record["answer"]))
            place += count
        return Made(rows, list(range(len(rows))), cut_count(whole, cut))

    def natural_length(self, records: Sequence[Record], tokenizer: Any) -> int:
        """Of most texts."""
        return covering([len(text.ids) for text in _texts(records, tokenizer)])

    def head(self, tokenizer: Any, seed: int) -> Head:
        """One output for each text."""
        return Head("AutoModelForMultipleChoice", {"pad_token_id": self.framing.pad_id}, seed)

    def figures(self, found: DatasetLoss) -> dict[str, Any]:
        """The share of right choices found."""
        return {"choice_accuracy": found.token_accuracy, "metrics": {"accuracy": found.token_accuracy}}

    def judge(self, held: Held, logits: Sequence[Tensor]) -> Judged:
        """Every held-out question gets its likeliest choice."""
        predicted, expected = [int(one.argmax()) for one in logits], [row.answer for row in held.rows.rows]
        right = accuracy(predicted, expected)
        answers = []
        for index, found, wanted in zip(held.rows.indices, predicted, expected, strict=True):
            choices = held.records[index]["choices"]
            answers.append(Answer(index, choices[found], choices[wanted], found == wanted))
        return Judged({"choice_accuracy": right, "metrics": {"accuracy": right}}, answers)

    def shown(self, record: Record) -> str:
        """What stands before its choices."""
        return _asked(record)

    def kind(self) -> ChoiceKind:
        """Choices side by side."""
        return ChoiceKind(self.framing)


def _texts(records: Sequence[Record], tokenizer: Any, limit: int | None = None) -> list[Text]:
    """The texts of all choices of all records, end to end."""
    asked = [_asked(record) for record in records for _ in record["choices"]]
    return tokenise(tokenizer, asked, [choice for record in records for choice in record["choices"]], limit)


def _asked(record: Record) -> str:
    """What stands before a choice."""
    return "\n\n".join(record[name] for name in ("context", "question") if name in record)
