"""What a run's models are measured on: its held-out rows, and Graft's general probe. The same for base, tuned and exported model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from jobs.evaluation import measure_probe
from jobs.events import finite
from jobs.tasks.work import Held, Rows
from jobs.training.loop import Progress
from jobs.training.loss import dataset_loss
from jobs.training.rowsets import EncodedSets
from jobs.training.running import Runner

if TYPE_CHECKING:
    from jobs.run import Session


class Subject(Protocol):
    """What is measured: a trainer's model as it is, or one that nothing trains. `progress` keeps the figures, by model."""

    @property
    def forward(self) -> Runner:
        """How the model is run."""

    @property
    def progress(self) -> Progress:
        """Where the step is counted and results are kept."""

    @property
    def epoch(self) -> float:
        """How often all rows were seen."""


@dataclass(frozen=True)
class HeldOut:
    """The rows that models are compared on."""

    session: Session
    rows: Rows
    encoded: EncodedSets
    tokenizer: Any

    @property
    def held(self) -> Held:
        """Records and tokens."""
        return Held(self.rows.held_out, self.encoded.of(self.rows.held_out_split), self.tokenizer)

    def compare(self, name: str, subject: Subject, *, again: bool = True) -> None:
        """Measures the subject's model as it is, on the held-out rows and on the probe, and keeps the figures with its progress.

        What is there already is measured `again` only where that is wanted.
        """
        results = subject.progress.results
        if self.held.rows.rows and (again or name not in results):
            results[name] = self.measure(subject.forward, name, subject)
        probed = results.setdefault("probe", {})
        if self.session.work.writes and self.session.spec.evaluation.retention and (again or name not in probed):
            probed[name] = self.probe(subject.forward, name, subject)

    def probe(self, forward: Runner, name: str, subject: Subject) -> dict[str, Any]:
        """What a model makes of the general probe: emits its `eval` event under `name`, and returns its data."""
        report = self.session.phase("evaluating", None, "rows")
        forward.model.eval()
        with arithmetic(forward):
            found = measure_probe(
                forward.model,
                self.tokenizer,
                loss_of=lambda rows: dataset_loss(forward, rows),
                progress=lambda done, _: report(done),
            )
        data = {"step": subject.progress.step, "epoch": subject.epoch, "split": "probe", "model": name, **found}
        self.session.emit("eval", **data)
        return dict(finite(data))

    def measure(self, forward: Runner, name: str, subject: Subject) -> dict[str, Any]:
        """Evaluates a model, emits its `eval` and `sample` events under `name`, and returns the data of the `eval`."""
        report = self.session.phase("evaluating", None, "rows")
        forward.model.eval()
        with arithmetic(forward):
            found = self.session.work.evaluate(forward, self.held, self.session.spec.evaluation, lambda done, _: report(done))
        samples = found.pop("samples")
        step = subject.progress.step
        self.session.emit("eval", step=step, epoch=subject.epoch, split=self.rows.held_out_split, model=name, **found)
        for sample in samples:
            self.session.emit("sample", step=step, model=name, **sample)
        measured: dict[str, Any] = finite({"step": step, "epoch": subject.epoch, "split": self.rows.held_out_split, "model": name, **found})
        return measured


def arithmetic(forward: Runner) -> torch.autocast:
    """The arithmetic that the run trains in."""
    return torch.autocast(forward.device.split(":")[0], dtype=forward.dtype, enabled=forward.dtype != torch.float32)
