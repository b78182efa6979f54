"""What a run's models are measured on: its held-out rows, and Graft's general probe. The same for base, tuned and exported model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from jobs.evaluation import evaluate, measure_probe
from jobs.events import finite
from jobs.training.forward import Forward
from jobs.training.loop import Trainer
from jobs.training.loss import DatasetLoss, dataset_loss
from jobs.training.rowsets import EncodedSets, RowSets

if TYPE_CHECKING:
    from jobs.run import Session


@dataclass(frozen=True)
class HeldOut:
    """The rows that models are compared on."""

    session: Session
    rows: RowSets
    encoded: EncodedSets
    tokenizer: Any

    @property
    def records(self) -> list[Any]:
        """Those of them that have a token to measure."""
        encoded = self.encoded.of(self.rows.held_out_split)
        return [self.rows.held_out[index] for index in encoded.indices]

    def compare(self, name: str, trainer: Trainer, *, again: bool = True) -> None:
        """Measures the trainer's model as it is, on the held-out rows and on the probe, and keeps the figures with its progress.

        What is there already is measured `again` only where that is wanted.
        """
        results = trainer.progress.results
        if self.records and (again or name not in results):
            results[name] = self.measure(trainer.forward, name, trainer)
        probed = results.setdefault("probe", {})
        if self.session.spec.evaluation.retention and (again or name not in probed):
            probed[name] = self.probe(trainer.forward, name, trainer)

    def probe(self, forward: Forward, name: str, trainer: Trainer) -> dict[str, Any]:
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

    def measure(self, forward: Forward, name: str, trainer: Trainer) -> dict[str, Any]:
        """Evaluates a model, emits its `eval` and `sample` events under `name`, and returns the data of the `eval`."""
        encoded = self.encoded.of(self.rows.held_out_split).rows
        report = self.session.phase("evaluating", None, "rows")
        forward.model.eval()

        def loss_of() -> DatasetLoss:
            return dataset_loss(forward, encoded, lambda done, _: report(done))

        with _autocast(forward):
            found = evaluate(
                forward.model,
                self.tokenizer,
                self.records,
                self.session.spec.evaluation,
                loss_of=loss_of,
                progress=lambda done, _: report(done),
            )
        samples = found.pop("samples")
        step = trainer.progress.step
        self.session.emit("eval", step=step, epoch=trainer.epoch, split=self.rows.held_out_split, model=name, **found)
        for sample in samples:
            self.session.emit("sample", step=step, model=name, **sample)
        measured: dict[str, Any] = finite({"step": step, "epoch": trainer.epoch, "split": self.rows.held_out_split, "model": name, **found})
        return measured


def _autocast(forward: Forward) -> torch.autocast:
    """The arithmetic that the run trains in."""
    return torch.autocast(forward.device.split(":")[0], dtype=forward.dtype, enabled=forward.dtype != torch.float32)
