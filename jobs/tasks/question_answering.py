"""Extractive question answering by encoders: the words of a text that answer a question, or none where the data has such questions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from jobs.data.split import spread
from jobs.data.tokens import EncodedRows
from jobs.evaluation.squad import exact_match, scores
from jobs.events import NOTHING_MEASURED
from jobs.models.heads import Head
from jobs.spec import EvaluationSpec, RunSpec, Task
from jobs.tasks.forward import TaskForward
from jobs.tasks.reading import HeadWork, Made, Record, Source
from jobs.tasks.windows import LENGTH, Found, WindowKind, WindowRow, best_answer, windows
from jobs.tasks.work import Held, Means, Progress, device_of
from jobs.training.loss import DatasetLoss


class QuestionAnswering(HeadWork):
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

    def forward(self, model: Any, rows: Sequence[Any], means: Means, spec: RunSpec) -> tuple[TaskForward, list[str]]:
        """Padded batches."""
        del rows, spec
        return TaskForward(model, means.dtype, means.device, WindowKind(self.framing)), []

    def figures(self, found: DatasetLoss) -> dict[str, Any]:
        """The loss alone: a window is no question."""
        return {}

    def evaluate(
        self,
        runner: TaskForward,
        held: Held,
        spec: EvaluationSpec,
        progress: Progress,
    ) -> dict[str, Any]:
        """Every held-out question gets its best answer over all windows; `exact_match` and `f1` are SQuAD's."""
        start = time.monotonic()
        records, held_out = held.records, held.rows
        measured = runner.logits(held_out.rows, progress)
        answered = self._answers(records, held_out, measured.logits)
        expected = [[answer["text"] for answer in records[index]["answers"]] for index in answered]
        metrics = scores(list(answered.values()), expected)
        return {
            **NOTHING_MEASURED,
            "loss": measured.loss,
            "exact_match": metrics["exact_match"],
            "metrics": metrics,
            "rows": len(answered),
            "tokens": held_out.tokens,
            "seconds": time.monotonic() - start,
            "samples": [
                {
                    "index": index,
                    "prompt": f"{records[index]['context']}\n\n{records[index]['question']}",
                    "answer": answered[index],
                    "expected": wanted[0] if wanted else "",
                    "correct": any(exact_match(answered[index], one) for one in wanted or [""]),
                }
                for index, wanted in spread(list(zip(answered, expected, strict=True)), spec.samples)
            ],
        }

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

    def logits(self, model: Any, row: WindowRow) -> Tensor:
        """[2, length] of one window."""
        kind = WindowKind(self.framing)
        laid = kind.lay([row]).to(str(device_of(model)))
        return kind.logits(model(**laid.inputs), laid)[0].cpu()
