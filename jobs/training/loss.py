"""Loss and token accuracy over a set of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jobs.data.tokens import Row
from jobs.training.running import Runner

# A batch of an evaluation: few enough tokens that memory stays below that of a training step.
_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class DatasetLoss:
    """Sums over the labels of some rows: tokens where the model writes, else rows."""

    loss_sum: float
    tokens: int
    correct: int

    @property
    def loss(self) -> float:
        """Mean loss per label: cross-entropy in nats, or what the task has in its place."""
        return self.loss_sum / self.tokens if self.tokens else float("nan")

    @property
    def token_accuracy(self) -> float:
        """Share of label tokens that are the most likely one."""
        return self.correct / self.tokens if self.tokens else float("nan")


def dataset_loss(forward: Runner, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None) -> DatasetLoss:
    """The loss of `rows` in evaluation mode; the model's mode is put back afterwards. `progress` gets rows done and all rows."""
    model, was_training = forward.model, forward.model.training
    model.eval()
    loss_sum, correct, done = 0.0, 0, 0
    try:
        for batch in _batches(rows):
            loss, hits = forward.score(batch)
            loss_sum, correct, done = loss_sum + loss, correct + hits, done + len(batch)
            if progress:
                progress(done, len(rows))
    finally:
        model.train(was_training)
    return DatasetLoss(loss_sum, sum(row.labels for row in rows), correct)


def _batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of like length together, longest first: padding stays small, and memory is highest at the start."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        if batch and (len(batch) + 1) * len(batch[0].ids) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
