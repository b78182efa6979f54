"""Classification of a text or a pair of texts, by encoders and by causal models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from jobs.errors import UserError
from jobs.evaluation.metrics import classification
from jobs.models.heads import Head, labels_config
from jobs.spec import Task
from jobs.tasks.obstacles import MOST_LABELS
from jobs.tasks.reading import Record, Source
from jobs.tasks.text import TextWork
from jobs.tasks.work import Answer, Held, Judged
from jobs.training.loss import DatasetLoss


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

    def recall(self, rows: Source, config: Any, tokenizer: Any, architecture: str) -> None:
        """The labels of the model itself. Raises `UserError("label_foreign")` for a row with another."""
        super().learn(rows, [], tokenizer, architecture)
        self.labels = [str(config.id2label[number]) for number in range(config.num_labels)]
        self.numbers = {label: number for number, label in enumerate(self.labels)}
        for line, record in rows.rows:
            if record["label"] not in self.numbers:
                known = ", ".join(self.labels[:20])
                where = {"file": str(rows.file), "line": line}
                raise UserError("label_foreign", place=f"Line {line}", label=record["label"][:80], known=known, where=where)

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

    def judge(self, held: Held, logits: Sequence[Tensor]) -> Judged:
        """Every held-out row gets its likeliest label."""
        predicted, expected = [int(one.argmax()) for one in logits], [int(row.target) for row in held.rows.rows]
        metrics = classification(predicted, expected, len(self.labels))
        answers = [
            Answer(index, self.labels[found], self.labels[wanted], found == wanted)
            for index, found, wanted in zip(held.rows.indices, predicted, expected, strict=True)
        ]
        return Judged({"label_accuracy": metrics["accuracy"], "metrics": metrics}, answers)


def sorted_labels(labels: set[str]) -> list[str]:
    """Labels in the order of their classes: as numbers where all are whole numbers, else by their text."""
    try:
        return sorted(labels, key=lambda label: (int(label), label))
    except ValueError:
        return sorted(labels)
