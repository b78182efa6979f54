"""Classification of a text or a pair of texts, by encoders and by causal models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jobs.data.split import spread
from jobs.errors import UserError
from jobs.evaluation.metrics import classification
from jobs.events import NOTHING_MEASURED
from jobs.models.heads import Head, labels_config
from jobs.spec import EvaluationSpec, Task
from jobs.tasks.forward import TaskForward
from jobs.tasks.reading import Record, Source
from jobs.tasks.text import TextWork, shown
from jobs.tasks.work import Held, Progress
from jobs.training.loss import DatasetLoss

MOST_LABELS = 1000


class SequenceClassification(TextWork):
    """The classes are the labels of the training rows, sorted: as numbers where all are whole numbers, else as text."""

    task: Task = "sequence_classification"

    def learn(self, train: Source, held_out: Sequence[Source], tokenizer: Any, architecture: str) -> None:
        """The labels. Raises `UserError`: `labels_wrong`, and `label_unknown` for a held-out row whose label no training row has."""
        super().learn(train, held_out, tokenizer, architecture)
        found = {str(record["label"]) for _, record in train.rows}
        if not 2 <= len(found) <= MOST_LABELS:
            count = f"{len(found):,} different labels" if len(found) != 1 else f"one label alone, '{next(iter(found))[:40]}'"
            raise UserError("labels_wrong", count=count, most=f"{MOST_LABELS:,}", where={"file": str(train.file)})
        self.labels = sorted_labels(found)
        for source in held_out:
            for line, record in source.rows:
                if record["label"] not in found:
                    where = {"file": str(source.file), "line": line}
                    raise UserError("label_unknown", place=f"Line {line}", label=record["label"][:80], where=where)
        self.numbers = {label: number for number, label in enumerate(self.labels)}

    def target(self, record: Record) -> float:
        """The number of its label."""
        return self.numbers[record["label"]]

    def head(self, tokenizer: Any, seed: int) -> Head:
        """A class for each label, under its name."""
        del tokenizer
        problem = {"problem_type": "single_label_classification", "pad_token_id": self.framing.pad_id}
        return Head("AutoModelForSequenceClassification", {**labels_config(self.labels), **problem}, seed)

    def figures(self, found: DatasetLoss) -> dict[str, Any]:
        """The share of labels found."""
        return {"label_accuracy": found.token_accuracy, "metrics": {"accuracy": found.token_accuracy}}

    def evaluate(
        self,
        runner: TaskForward,
        held: Held,
        spec: EvaluationSpec,
        progress: Progress,
    ) -> dict[str, Any]:
        """Every held-out row gets its likeliest label."""
        start = time.monotonic()
        records, held_out = held.records, held.rows
        measured = runner.logits(held_out.rows, progress)
        predicted = [int(logits.argmax()) for logits in measured.logits]
        expected = [int(row.target) for row in held_out.rows]
        metrics = classification(predicted, expected, len(self.labels))
        return {
            **NOTHING_MEASURED,
            "loss": measured.loss,
            "label_accuracy": metrics["accuracy"],
            "metrics": metrics,
            "rows": len(expected),
            "tokens": held_out.tokens,
            "seconds": time.monotonic() - start,
            "samples": [
                {
                    "index": index,
                    "prompt": shown(records[index]),
                    "answer": self.labels[predicted[place]],
                    "expected": self.labels[expected[place]],
                    "correct": predicted[place] == expected[place],
                }
                for place, index in spread(list(enumerate(held_out.indices)), spec.samples)
            ],
        }


def sorted_labels(labels: set[str]) -> list[str]:
    """Labels in the order of their classes: as numbers where all are whole numbers, else by their text."""
    try:
        return sorted(labels, key=lambda label: (int(label), label))
    except ValueError:
        return sorted(labels)
