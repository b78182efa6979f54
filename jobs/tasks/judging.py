"""Tasks whose model reads a row once and gives its logits: the loss and what is made of the logits are all there is to an evaluation."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from jobs.spec import EvaluationSpec
from jobs.tasks.forward import TaskForward
from jobs.tasks.reading import HeadWork, Record
from jobs.tasks.work import Held, Judged, Progress, evaluation


class JudgingWork(HeadWork):
    """A subclass says what logits mean (`judge`) and how a reader sees a question (`shown`)."""

    @abstractmethod
    def judge(self, held: Held, logits: Sequence[Tensor]) -> Judged:
        """Answers and figures (less the loss) of the held-out rows, by the logits of each."""

    @abstractmethod
    def shown(self, record: Record) -> str:
        """What stands before the answer, as a reader of samples sees it."""

    def evaluate(self, runner: TaskForward, held: Held, spec: EvaluationSpec, progress: Progress) -> dict[str, Any]:
        """Every held-out row is read once; what is counted as rows are the answers."""
        started = time.monotonic()
        measured = runner.logits(held.rows.rows, progress)
        judged = self.judge(held, measured.logits)
        return evaluation(
            replace(judged, figures={"loss": measured.loss, **judged.figures}),
            lambda index: self.shown(held.records[index]),
            spec.samples,
            started=started,
            rows=len(judged.answers),
            tokens=held.rows.tokens,
        )
