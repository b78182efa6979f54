"""What becomes of a training that ran out of memory: it goes on from its last checkpoint in micro-batches of half the size.

A step keeps its rows and their order, and the optimiser sees the same sum of gradients but for the order in which it is added up; dropout
alone draws other numbers. The spec stays as people wrote it: `Run.memory_cuts` says how often its micro-batch is to be halved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs.errors import GraftError
from jobs.spec import TrainingSpec
from webapp.runs.kinds import Kind
from webapp.runs.lease import Failure
from webapp.runs.models import Run
from webapp.runs.outcome import Outcome

OUT_OF_MEMORY = frozenset({"cuda_oom", "host_oom"})
MOST_CUTS = 4
# The limits of the spec (`jobs.spec.TrainingSpec`).
LEAST_TOKENS, MOST_ACCUMULATION = 16, 4096


@dataclass(frozen=True)
class Batches:
    """How a step's rows are cut into micro-batches: the fields of the spec's training by the same names."""

    micro_batch: int
    gradient_accumulation: int
    micro_batch_tokens: int | None = None

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> Batches:
        """Those of a stored spec's `training`."""
        return cls(training["micro_batch"], training["gradient_accumulation"], training.get("micro_batch_tokens"))

    def halved(self) -> Batches | None:
        """The next smaller ones with the same rows in a step; None where there are none.

        Where a step's rows do not divide by twice the accumulation (micro-batches of 3, say), the largest size that divides them is taken.
        """
        if self.micro_batch_tokens is not None:
            tokens = self.micro_batch_tokens // 2
            return replace(self, micro_batch_tokens=tokens) if tokens >= LEAST_TOKENS else None
        rows = self.micro_batch * self.gradient_accumulation
        sizes = (size for size in range(self.micro_batch // 2, 0, -1) if rows % size == 0 and rows // size <= MOST_ACCUMULATION)
        size = next(sizes, None)
        return None if size is None else Batches(size, rows // size)

    def after(self, cuts: int) -> Batches:
        """Those after so many halvings, as far as they go."""
        smaller = self.halved() if cuts > 0 else None
        return self if smaller is None else smaller.after(cuts - 1)

    def __str__(self) -> str:
        return (
            f"{self.micro_batch} x {self.gradient_accumulation}" if self.micro_batch_tokens is None else f"{self.micro_batch_tokens} tokens"
        )

    @property
    def words(self) -> str:
        """The size of a micro-batch, for people."""
        if self.micro_batch_tokens is not None:
            return ngettext("%(count)s token", "%(count)s tokens", self.micro_batch_tokens) % {"count": self.micro_batch_tokens}
        return ngettext("%(count)s row", "%(count)s rows", self.micro_batch) % {"count": self.micro_batch}


def batches_of(run: Run) -> Batches:
    """Those that a training is given now."""
    return Batches.of(run.spec["training"]).after(run.memory_cuts)


def fields_of(run: Run) -> dict[str, Any]:
    """The same as fields of the spec's training."""
    return asdict(batches_of(run))


def smaller(training: TrainingSpec, cuts: int) -> TrainingSpec:
    """A training after so many halvings."""
    return replace(training, **asdict(Batches.of(asdict(training)).after(cuts)))


def told(run: Run) -> str:
    """What the page says of a training whose micro-batch was made smaller; nothing of another."""
    if run.kind != Kind.TRAIN or not run.memory_cuts:
        return ""
    words = _(
        "It ran out of memory, so it is trained in micro-batches of %(new)s in place of %(old)s. The rows of each step are the same; it "
        "only takes longer."
    )
    return words % {"new": batches_of(run).words, "old": Batches.of(run.spec["training"]).words}


def depends_on_batch(phase: Mapping[str, Any]) -> bool:
    """Whether what a training does in this phase (the last `phase` event) takes memory by its micro-batch: its steps do, and the trial of
    a few rows that comes once the model is loaded.
    """
    return phase.get("name") == "training" or (phase.get("name") == "loading" and bool(phase.get("done")))


def judged(outcome: Outcome, run: Run, phase: Mapping[str, Any]) -> Outcome:
    """The outcome of an attempt of `run`, which ended in `phase`: where it ran out of memory and a smaller micro-batch may help, `smaller`;
    where it was made smaller and did not help, failed with what else may.
    """
    if outcome.failure is None or outcome.failure.code not in OUT_OF_MEMORY or run.kind != Kind.TRAIN or not depends_on_batch(phase):
        return outcome
    batches = batches_of(run)
    if run.memory_cuts < MOST_CUTS and batches.halved() is not None:
        return Outcome("smaller", outcome.failure)
    if run.memory_cuts == 0:
        return outcome
    spent = GraftError("memory_spent", reason=outcome.failure.message, count=run.memory_cuts, batches=batches)
    return Outcome("failed", Failure(outcome.failure.code, spent.message, spent.remedy, outcome.failure.exit_code))
