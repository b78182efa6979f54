"""The training loop: batch, forward, loss, backward, clip, AdamW, schedule, event, evaluation, checkpoint. One for every method."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from jobs.data.encoding import Encoded
from jobs.errors import GraftError
from jobs.models.device import memory
from jobs.spec import TrainingSpec
from jobs.training import checkpoint
from jobs.training.forward import Forward
from jobs.training.loss import DatasetLoss, dataset_loss
from jobs.training.optimiser import make_optimiser, optimiser_tensors, restore_optimiser
from jobs.training.order import Order, dropout_seed
from jobs.training.schedule import rate_factor, warmup_steps

NONFINITE_LIMIT = 3
EVALUATIONS = 8
_RECENT_STEPS = 20

Emit = Callable[..., Any]


@dataclass
class Progress:
    """What a resumed run must know besides the tensors. `seconds` is time spent on steps, evaluation excluded."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    nonfinite: int = 0
    best_loss: float | None = None
    results: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trainer:
    """A run's training. `fingerprint` tells whether a checkpoint belongs to it; `stop` says that somebody wants it to end.

    `validation` rows may be none. `parameters` are the trained ones by name, in float32.
    """

    forward: Forward
    rows: Sequence[Encoded]
    validation: Sequence[Encoded]
    spec: TrainingSpec
    learning_rate: float
    seed: int
    out: Path
    emit: Emit
    stop: Callable[[], bool]
    fingerprint: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.order = Order(len(self.rows), self.spec.micro_batch, self.spec.gradient_accumulation, self.seed)
        self.total_steps = self.order.total_steps(self.spec.epochs, self.spec.max_steps)
        self.warmup = warmup_steps(self.total_steps, self.spec.warmup_share)
        self.evaluate_every = self.spec.evaluate_every_steps or math.ceil(self.total_steps / EVALUATIONS)
        self.parameters = {name: parameter for name, parameter in self.forward.model.named_parameters() if parameter.requires_grad}
        self.optimiser = make_optimiser(self.parameters, self.learning_rate, self.spec.weight_decay)
        self.clock = checkpoint.Clock(self.total_steps, self.spec.checkpoint_every_steps)
        self.progress = Progress()
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)

    def run(self) -> None:
        """Trains from the step reached to the last, and leaves a checkpoint of it.

        Raises `GraftError`: `preempted` with a checkpoint written, `nonfinite`, `cuda_oom`, `host_oom`, `disk_full`.
        """
        progress = self.progress
        model = self.forward.model
        if self.spec.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.emit("phase", name="training", done=progress.step, total=self.total_steps, unit="steps")
        for micro_batches in self.order.micro_batches(progress.step, self.total_steps):
            model.train()
            started = time.monotonic()
            loss, tokens = self._gradients(micro_batches)
            norm = self._clip()
            rate = self._update(loss, norm)
            seconds = time.monotonic() - started
            self._count(seconds, tokens)
            self._report(loss, rate, norm, seconds, tokens)
            best = self._evaluate_if_due()
            if self.stop() and progress.step < self.total_steps:
                self.save(best=best)
                raise GraftError("preempted", step=progress.step)
            if progress.nonfinite == 0 and self.clock.due(progress.step, best=best):
                self.save(best=best)
        model.eval()

    def _gradients(self, micro_batches: Sequence[Sequence[int]]) -> tuple[float, int]:
        """Adds up the gradients of a step; returns the mean loss per label token of the whole step, and all tokens processed."""
        chosen = [[self.rows[index] for index in rows] for rows in micro_batches]
        labels = sum(int(row.trained.sum()) for rows in chosen for row in rows)
        total, tokens = torch.zeros((), device=self.forward.device), 0
        for micro, rows in enumerate(chosen):
            torch.manual_seed(dropout_seed(self.seed, self.progress.step, micro))
            batch = self.forward.batch(rows)
            with self.forward.running(batch):
                loss = self.forward.loss_sum(batch) / labels
                torch.autograd.backward(loss)
            total += loss.detach()
            tokens += batch.tokens
        return float(total), tokens

    def _clip(self) -> float:
        """The norm of all gradients together, before they are shortened to the limit."""
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.spec.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(list(self.parameters.values()), self.spec.clip_norm, norm)
        return float(norm)

    def _update(self, loss: float, norm: float) -> float:
        """One step of AdamW where loss and gradient are finite, none where not; returns the learning rate."""
        rate = self.learning_rate * rate_factor(
            self.progress.step, total_steps=self.total_steps, warmup=self.warmup, kind=self.spec.schedule
        )
        if math.isfinite(loss) and math.isfinite(norm):
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.step()
            self.progress.nonfinite = 0
        else:
            self.progress.nonfinite += 1
        self.optimiser.zero_grad(set_to_none=True)
        return rate

    def _count(self, seconds: float, tokens: int) -> None:
        self.progress.step += 1
        self.progress.tokens += tokens
        self.progress.seconds += seconds
        self._recent.append(seconds)

    def _report(self, loss: float, rate: float, norm: float, seconds: float, tokens: int) -> None:
        progress = self.progress
        self.emit(
            "step",
            step=progress.step,
            epoch=self.epoch,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm,
            tokens=progress.tokens,
            tokens_per_second=tokens / seconds,
            elapsed_seconds=progress.seconds,
            eta_seconds=(self.total_steps - progress.step) * sum(self._recent) / len(self._recent),
            memory=memory(self.forward.device.split(":")[0]),
        )
        if progress.nonfinite == NONFINITE_LIMIT:
            raise GraftError("nonfinite", count=NONFINITE_LIMIT, step=progress.step)

    @property
    def epoch(self) -> float:
        """Epochs done, with fractions."""
        return self.progress.step / self.order.steps_per_epoch

    def _evaluate_if_due(self) -> bool:
        """Measures the validation loss where it is time; returns whether it is the lowest so far."""
        step = self.progress.step
        if not self.validation or (step % self.evaluate_every and step != self.total_steps):
            return False
        return self.validate("tuned")

    def validate(self, model: str) -> bool:
        """Measures the validation loss and emits it under the name `model`; returns whether it is the lowest so far."""
        started = time.monotonic()
        self.emit("phase", name="evaluating", done=0, total=len(self.validation), unit="rows")
        found = dataset_loss(self.forward, self.validation)
        self.emit(
            "eval",
            step=self.progress.step,
            epoch=self.epoch,
            split="validation",
            model=model,
            **eval_data(found, len(self.validation), started),
        )
        if self.progress.step < self.total_steps:
            self.emit("phase", name="training", done=self.progress.step, total=self.total_steps, unit="steps")
        best = self.progress.best_loss
        if not math.isfinite(found.loss) or (best is not None and found.loss >= best):
            return False
        self.progress.best_loss = found.loss
        return True

    def save(self, *, best: bool = False) -> None:
        """Writes a checkpoint, tells of it, and removes what is no longer needed."""
        started = time.monotonic()
        saved = checkpoint.save(
            self.out / "checkpoints",
            self.progress.step,
            weights={name: parameter.detach().contiguous() for name, parameter in self.parameters.items()},
            optimiser=optimiser_tensors(self.optimiser, self.parameters),
            state={**asdict(self.progress), "fingerprint": dict(self.fingerprint)},
            best=best,
        )
        checkpoint.rotate(self.out / "checkpoints")
        seconds = time.monotonic() - started
        self.clock.saved(self.progress.step, seconds)
        path = str(saved.path.relative_to(self.out))
        self.emit("checkpoint", step=saved.step, path=path, bytes=saved.bytes, seconds=seconds, best=best)

    def restore(self, path: Path) -> None:
        """Continues from a checkpoint that `checkpoint.verify` accepts. Raises `UserError("resume_mismatch")` where it is another run's."""
        state = checkpoint.read_state(path)
        checkpoint.require_same_run(path, state, self.fingerprint)
        weights, moments = checkpoint.read_tensors(path)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        restore_optimiser(self.optimiser, self.parameters, moments)
        self.progress = Progress(**{name: state[name] for name in Progress.__dataclass_fields__})
        self.clock.saved(self.progress.step, 0.0)


def eval_data(found: DatasetLoss, rows: int, started: float) -> dict[str, Any]:
    """The measured part of an `eval` event where only the loss was asked for; `started` is a reading of `time.monotonic`."""
    return {
        "loss": found.loss,
        "perplexity": math.exp(min(found.loss, 700.0)),
        "token_accuracy": found.token_accuracy,
        "exact_match": None,
        "label_accuracy": None,
        "rows": rows,
        "tokens": found.tokens,
        "seconds": time.monotonic() - started,
    }
