"""A number for a text or a pair of texts, by encoders and by causal models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from jobs.evaluation.metrics import regression
from jobs.models.heads import Head
from jobs.spec import Task
from jobs.tasks.reading import Record
from jobs.tasks.text import TextWork
from jobs.tasks.work import Answer, Held, Judged
from jobs.training.loss import DatasetLoss


class Regression(TextWork):
    """The head has one output, and the loss is the mean squared difference, in the numbers' own unit: as GLUE's STS-B is trained."""

    task: Task = "regression"
    number = True

    def target(self, record: Record) -> float:
        """Its number."""
        return float(record["number"])

    def head(self, tokenizer: Any, seed: int) -> Head:
        """One output."""
        del tokenizer
        config = {"num_labels": 1, "problem_type": "regression", "pad_token_id": self.framing.pad_id}
        return Head("AutoModelForSequenceClassification", config, seed)

    def figures(self, found: DatasetLoss) -> dict[str, Any]:
        """The loss is the error."""
        return {"metrics": {"mean_squared_error": found.loss}}

    def judge(self, held: Held, logits: Sequence[Tensor]) -> Judged:
        """Every held-out row gets its number."""
        predicted, expected = [float(one[0, 0]) for one in logits], [float(row.target) for row in held.rows.rows]
        answers = [
            Answer(index, f"{found:.4g}", f"{wanted:.4g}", None)
            for index, found, wanted in zip(held.rows.indices, predicted, expected, strict=True)
        ]
        return Judged({"metrics": regression(predicted, expected)}, answers)
