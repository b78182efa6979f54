"""What a run's models are measured on: its held-out rows, and Graft's general probe. The same for base, tuned and exported model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from jobs.evaluation import measure_probe
from jobs.events import finite
from jobs.tasks.work import Held, Rows
from jobs.training.loop import Trainer
from jobs.training.loss import dataset_loss
from jobs.training.rowsets import EncodedSets
from jobs.training.running import Runner

if TYPE_CHECKING:
    from jobs.run import Session


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

    def compare(self, name: str, trainer: Trainer, *, again: bool = True) -> None:
        """Measures the trainer's model as it is, on the held-out rows and on the probe, and keeps the figures with its progress.

        What is there already is measured `again` only where that is wanted.
        """
        results = trainer.progress.results
        if self.held.rows.rows and (again or name not in results):
            results[name] = self.measure(trainer.forward, name, trainer)
        probed = results.setdefault("probe", {})
        if self.session.work.writes and self.session.spec.evaluation.retention and (again or name not in probed):
            probed[name] = self.probe(trainer.forward, name, trainer)

    def probe(self, forward: Runner, name: str, trainer: Trainer) -> dict[str, Any]:
        """What a model makes of the general probe: emits its `eval` event under `name`, and returns its data."""
        report = self.session.phase("evaluating", None, "rows")
        forward.model.eval()
        with _autocast(forward):
            found = measure_probe(
                forward.model,
                self.tokenizer,
                loss_of=lambda rows: dataset_loss(forward, rows),
                progress=lambda done, _: report(done),
            )
        data = {"step": trainer.progress.step, "epoch": trainer.epoch, "split": "probe", "model": name, **found}
        self.session.emit("eval", **data)
        return dict(finite(data))

    def measure(self, forward: Runner, name: str, trainer: Trainer) -> dict[str, Any]:
        """Evaluates a model, emits its `eval` and `sample` events under `name`, and returns the data of the `eval`."""
        report = self.session.phase("evaluating", None, "rows")
        forward.model.eval()
        with _autocast(forward):
            found = self.session.work.evaluate(forward, self.held, self.session.spec.evaluation, lambda done, _: report(done))
        samples = found.pop("samples")
        step = trainer.progress.step
        self.session.emit("eval", step=step, epoch=trainer.epoch, split=self.rows.held_out_split, model=name, **found)
        for sample in samples:
            self.session.emit("sample", step=step, model=name, **sample)
        measured: dict[str, Any] = finite({"step": step, "epoch": trainer.epoch, "split": self.rows.held_out_split, "model": name, **found})
        return measured


def _autocast(forward: Runner) -> torch.autocast:
    """The arithmetic that the run trains in."""
    return torch.autocast(forward.device.split(":")[0], dtype=forward.dtype, enabled=forward.dtype != torch.float32)
