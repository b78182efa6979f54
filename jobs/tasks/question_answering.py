"""Extractive question answering by encoders: the words of a text that answer a question, or none where the data has such questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from jobs.data.tokens import EncodedRows
from jobs.evaluation.squad import exact_match, scores
from jobs.models.heads import Head
from jobs.spec import Task
from jobs.tasks.judging import JudgingWork
from jobs.tasks.reading import Made, Record, Source
from jobs.tasks.windows import LENGTH, Found, WindowKind, WindowRow, best_answer, windows
from jobs.tasks.work import Answer, Held, Judged
from jobs.training.loss import DatasetLoss


class QuestionAnswering(JudgingWork):
    """Rows are windows; the loss is a window's, the figures are a question's."""

    task: Task = "question_answering"

    def learn(self, train: Source, held_out: Sequence[Source], tokenizer: Any, architecture: str) -> None:
        """Whether some questions have no answer."""
        super().learn(train, held_out, tokenizer, architecture)
        self.may_be_empty = any(not record["answers"] for _, record in train.rows)

    def encode(self, records: Sequence[Record], tokenizer: Any, limit: int) -> Made:
        """The windows of every question. None is cut: what does not fit goes into the next window."""
        rows: list[WindowRow] = []
        indices: list[int] = []
        for index, record in enumerate(records):
            found = windows(record, tokenizer, limit)
            rows += found
            indices += [index] * len(found)
        return Made(rows, indices, 0)

    def natural_length(self, records: Sequence[Record], tokenizer: Any) -> int:
        """That of BERT's own runs on SQuAD."""
        return LENGTH

    def head(self, tokenizer: Any, seed: int) -> Head:
        """Two outputs for each token."""
        return Head("AutoModelForQuestionAnswering", {"num_labels": 2, "pad_token_id": self.framing.pad_id}, seed)

    def figures(self, found: DatasetLoss) -> dict[str, Any]:
        """The loss alone: a window is no question."""
        return {}

    def judge(self, held: Held, logits: Sequence[Tensor]) -> Judged:
        """Every held-out question gets its best answer over all windows; `exact_match` and `f1` are SQuAD's."""
        answered = self._answers(held.records, held.rows, logits)
        expected = [[answer["text"] for answer in held.records[index]["answers"]] for index in answered]
        metrics = scores(list(answered.values()), expected)
        answers = [
            Answer(index, found, wanted[0] if wanted else "", any(exact_match(found, one) for one in wanted or [""]))
            for (index, found), wanted in zip(answered.items(), expected, strict=True)
        ]
        return Judged({"exact_match": metrics["exact_match"], "metrics": metrics}, answers)

    def shown(self, record: Record) -> str:
        """The text, and the question about it."""
        return f"{record['context']}\n\n{record['question']}"

    def kind(self) -> WindowKind:
        """Windows side by side."""
        return WindowKind(self.framing)

    def _answers(self, records: Sequence[Mapping[str, Any]], held_out: EncodedRows, logits: Sequence[Tensor]) -> dict[int, str]:
        """The answer of each question, by its number; empty where "no answer" is likelier and the data knows of such."""
        places: dict[int, list[int]] = {}
        for place, index in enumerate(held_out.indices):
            places.setdefault(index, []).append(place)
        found: dict[int, Found] = {
            index: best_answer(records[index]["context"], [held_out.rows[place] for place in some], [logits[place] for place in some])
            for index, some in places.items()
        }
        return {index: "" if self.may_be_empty and best.margin < 0 else best.text for index, best in found.items()}
