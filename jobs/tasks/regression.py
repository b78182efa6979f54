"""A number for a text or a pair of texts, by encoders and by causal models."""

from __future__ import annotations

import time
from typing import Any

from jobs.data.split import spread
from jobs.evaluation.metrics import regression
from jobs.events import NOTHING_MEASURED
from jobs.models.heads import Head
from jobs.spec import EvaluationSpec, Task
from jobs.tasks.forward import TaskForward
from jobs.tasks.reading import Record
from jobs.tasks.text import TextWork, shown
from jobs.tasks.work import Held, Progress
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

    def evaluate(
        self,
        runner: TaskForward,
        held: Held,
        spec: EvaluationSpec,
        progress: Progress,
    ) -> dict[str, Any]:
        """Every held-out row gets its number."""
        start = time.monotonic()
        records, held_out = held.records, held.rows
        measured = runner.logits(held_out.rows, progress)
        predicted = [float(logits[0, 0]) for logits in measured.logits]
        expected = [float(row.target) for row in held_out.rows]
        return {
            **NOTHING_MEASURED,
            "loss": measured.loss,
            "metrics": regression(predicted, expected),
            "rows": len(expected),
            "tokens": held_out.tokens,
            "seconds": time.monotonic() - start,
            "samples": [
                {
                    "index": index,
                    "prompt": shown(records[index]),
                    "answer": f"{predicted[place]:.4g}",
                    "expected": f"{expected[place]:.4g}",
                    "correct": None,
                }
                for place, index in spread(list(enumerate(held_out.indices)), spec.samples)
            ],
        }
