"""The training loop: batch, forward, loss, backward, clip, update, schedule, event, evaluation, checkpoint. One for every method."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from jobs.data.tokens import Row
from jobs.errors import GraftError, UserError
from jobs.events import NOTHING_MEASURED
from jobs.methods.hooks import Hooks
from jobs.models.device import gauges, memory
from jobs.models.resident import give_back_freed
from jobs.spec import EngineSpec, TrainingSpec, require_validation
from jobs.training import checkpoint
from jobs.training.libraries import Libraries, least_seconds
from jobs.training.loss import DatasetLoss, dataset_loss
from jobs.training.optimiser import grouped, make_optimiser, usable_kind
from jobs.training.order import Order, TokenBudget, dropout_seed
from jobs.training.prefetch import pays, prefetched
from jobs.training.running import Runner
from jobs.training.schedule import rate_factor, warmup_steps

NONFINITE_LIMIT = 3
EVALUATIONS = 8
_RECENT_STEPS = 20

Emit = Callable[..., Any]


@dataclass
class Progress:
    """What a resumed run must know besides the tensors. `seconds` is time spent on steps, evaluation excluded.

    `best_loss` is the lowest validation loss of trained weights, found at `best_step`; `without_gain` counts the evaluations since.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    nonfinite: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    without_gain: int = 0
    results: dict[str, Any] = field(default_factory=dict)


def token_figures(found: DatasetLoss) -> dict[str, Any]:
    """What a loss over tokens says besides: perplexity, and the share of tokens that are the likeliest."""
    return {"perplexity": math.exp(min(found.loss, 700.0)), "token_accuracy": found.token_accuracy}


@dataclass(frozen=True)
class Work:
    """The micro-batches of one step, and the labels of all of them together: tokens where the model writes, else rows."""

    batches: list[Any]
    labels: int


@dataclass
class Trainer:
    """A run's training. `fingerprint` tells whether a checkpoint belongs to it; `stop` says that somebody wants it to end, `finish` that it
    is to end after the step in hand as if that were its last: with a checkpoint, and on to what follows the training.

    `validation` rows may be none. `hooks` is what the method does between the steps; `figures` are those that the task adds to the
    validation loss. `sample` is called wherever the model is looked at before the training's end. `rate_of` gives the learning rate of
    a weight, by its name, as a multiple of the run's. `parameters` are the trained weights by name, in float32; after `run` they are those
    of step `kept_step`. Raises `UserError("validation_needed")`.
    """

    forward: Runner
    rows: Sequence[Row]
    validation: Sequence[Row]
    spec: TrainingSpec
    learning_rate: float
    seed: int
    out: Path
    emit: Emit
    stop: Callable[[], bool]
    fingerprint: Mapping[str, Any]
    engine: EngineSpec = field(default_factory=EngineSpec)
    rate_of: Callable[[str], float] = lambda _name: 1.0
    libraries: Libraries = field(default_factory=lambda: Libraries(None, exact=True))
    hooks: Hooks = field(default_factory=Hooks)
    figures: Callable[[DatasetLoss], Mapping[str, Any]] = token_figures
    finish: Callable[[], bool] = lambda: False
    sample: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        spec, device = self.spec, self.forward.device.split(":")[0]
        require_validation(spec, present=bool(self.validation))
        tokens = spec.micro_batch_tokens
        budget = TokenBudget(tokens, [len(row.ids) for row in self.rows], padded=not self.forward.packs) if tokens else None
        self.order = Order(len(self.rows), spec.micro_batch, spec.gradient_accumulation, self.seed, budget)
        self.total_steps = self.order.total_steps(spec.epochs, spec.max_steps)
        self.warmup = warmup_steps(self.total_steps, spec.warmup_share)
        self.evaluate_every = spec.evaluate_every_steps or math.ceil(self.total_steps / EVALUATIONS)
        self.parameters = {name: parameter for name, parameter in self.forward.model.named_parameters() if parameter.requires_grad}
        groups = grouped(self.parameters, spec.weight_decay, self.rate_of, self.hooks.decays)
        self.optimiser = make_optimiser(usable_kind(spec.optimiser, device), groups, flat=self.engine.flat_optimiser)
        # Float16 cannot hold small gradients: the loss is scaled up before backward, the gradient down after it. Without effect elsewhere.
        self.scaler = torch.amp.GradScaler(device, enabled=self.forward.dtype == torch.float16)
        self.clock = checkpoint.Clock(self.total_steps, spec.checkpoint_every_steps)
        self.progress = Progress()
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._folders: Sequence[Path] = [self.out]
        self.kept_step = 0
        self._finished = False

    def run(self) -> None:
        """Trains from the step reached to the last, leaves a checkpoint of it, and goes on with the best weights where they are wanted.

        Raises `GraftError`: `preempted` with a checkpoint written, `nonfinite`, `cuda_oom`, `host_oom`, `disk_full`.
        """
        progress = self.progress
        self._prepare()
        with closing(self._work()) as steps, closing(self.libraries):
            started = time.monotonic()
            for work in steps:
                self.forward.model.train()
                loss, tokens = self._gradients(work)
                self.scaler.unscale_(self.optimiser.inner)
                norm = self.optimiser.clip(self.spec.clip_norm)
                rate = self._update(loss, norm)
                seconds = time.monotonic() - started
                self._count(seconds, tokens)
                self._report(loss, rate, norm, seconds, tokens)
                self._finished = self.finish()
                best = self._evaluate_if_due()
                stopping = self.stop() and not self.is_done
                if stopping or self._is_checkpoint_due(best=best):
                    self.save(best=best)
                if stopping:
                    raise GraftError("preempted", step=progress.step)
                if self.is_done:
                    break
                self.libraries.after_step(least_seconds(self.total_steps - self.progress.step, self._recent))
                started = time.monotonic()  # a step's time holds the wait for its batches, but no evaluation and no checkpoint
        self._choose_weights()
        self.forward.model.eval()

    def _prepare(self) -> None:
        """Brings the model into the state to train in, and tells of what is not as the spec asks."""
        if self.spec.gradient_checkpointing:
            self.forward.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.forward.refresh()
        give_back_freed()  # what loading, checks and copies of weights took: a step's tensors are of other sizes and lie elsewhere
        kind = usable_kind(self.spec.optimiser, self.forward.device.split(":")[0])
        if kind != self.spec.optimiser:
            self._warn(
                "optimiser_not_paged",
                f"Without a GPU the optimiser has no pages: {kind} stands in for {self.spec.optimiser}.",
                "Nothing to do: the result is the same.",
            )
        self.emit("phase", name="training", done=self.progress.step, total=self.total_steps, unit="steps")

    def _work(self) -> Generator[Work, None, None]:
        """What is left to do, step by step."""
        first = self.total_steps if self.is_done else self.progress.step

        def make() -> Iterator[Work]:
            for micro_batches in self.order.micro_batches(first, self.total_steps):
                chosen = [[self.rows[index] for index in rows] for rows in micro_batches]
                labels = sum(row.labels for rows in chosen for row in rows)
                yield Work([self.forward.batch(rows) for rows in chosen], labels)

        yield from prefetched(make()) if self.engine.prefetch and pays(self.forward.device) else make()

    def _gradients(self, work: Work) -> tuple[float, int]:
        """Adds up the gradients of a step; returns the mean loss per label of the whole step, and all tokens processed."""
        total = torch.zeros((), device=self.forward.device)
        for micro, batch in enumerate(work.batches):
            torch.manual_seed(dropout_seed(self.seed, self.progress.step, micro))
            with self.forward.running(batch):
                loss = self.forward.loss_sum(batch) / work.labels
                torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
        if (penalty := self.hooks.penalty()) is not None:
            torch.autograd.backward(self.scaler.scale(penalty))
        return float(total), sum(batch.tokens for batch in work.batches)

    def _update(self, loss: float, norm: float) -> float:
        """One step of the optimiser where loss and gradient are finite, none where not; returns the learning rate."""
        spec, progress = self.spec, self.progress
        rate = self.learning_rate * rate_factor(
            progress.step, total_steps=self.total_steps, warmup=self.warmup, kind=spec.schedule, cycles=spec.schedule_cycles
        )
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimiser.step(rate)
            self.hooks.after_update(progress.step + 1, self.optimiser.reset)
            self.forward.refresh()
            progress.nonfinite = 0
        elif math.isfinite(loss) and self.scaler.is_enabled() and self.scaler.get_scale() > 1.0:
            self._tell(
                f"Step {progress.step + 1} was skipped: its gradient left the range of float16. The loss is scaled less from now on."
            )
        else:
            progress.nonfinite += 1
        self.scaler.update()
        self.optimiser.forget_gradients()
        return rate

    def _tell(self, message: str) -> None:
        self.emit("log", level="info", message=message)

    def _warn(self, code: str, message: str, remedy: str) -> None:
        self.emit("warning", code=code, message=message, remedy=remedy)

    def _seconds_left(self) -> float:
        return (self.total_steps - self.progress.step) * sum(self._recent) / len(self._recent)

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
            eta_seconds=self._seconds_left(),
            memory=memory(self.forward.device.split(":")[0]),
            **({"device": found} if (found := gauges(self.forward.device.split(":")[0])) else {}),
        )
        if progress.nonfinite == NONFINITE_LIMIT:
            raise GraftError("nonfinite", count=NONFINITE_LIMIT, step=progress.step)

    @property
    def epoch(self) -> float:
        """Epochs done, with fractions."""
        return self.progress.step / self.order.steps_per_epoch

    @property
    def is_done(self) -> bool:
        """Whether all steps are done, it was asked to finish, or the validation loss has not fallen for as many evaluations as the spec
        bears.
        """
        return self.progress.step >= self.total_steps or self._finished or self._stops_early

    @property
    def _stops_early(self) -> bool:
        patience = self.spec.early_stopping_evaluations
        return patience is not None and self.progress.without_gain >= patience

    def _evaluate_if_due(self) -> bool:
        """Shows the method's inside and measures the validation loss where it is time; returns whether it is the lowest so far."""
        progress = self.progress
        if progress.step % self.evaluate_every and not self.is_done:
            return False
        if seen := self.hooks.observe():
            self.emit("method", step=progress.step, **seen)
        if not self.is_done:  # at the end all held-out rows are asked
            self.sample()
        if not self.validation:
            return False
        loss = self.validate("tuned")
        if math.isfinite(loss) and (progress.best_loss is None or loss < progress.best_loss):
            progress.best_loss, progress.best_step, progress.without_gain = loss, progress.step, 0
            return True
        progress.without_gain += 1
        return False

    def validate(self, model: str) -> float:
        """Measures the validation loss, emits it under the name `model` and returns it."""
        started = time.monotonic()
        self.emit("phase", name="evaluating", done=0, total=len(self.validation), unit="rows")
        found = dataset_loss(self.forward, self.validation)
        self.emit(
            "eval",
            step=self.progress.step,
            epoch=self.epoch,
            split="validation",
            model=model,
            **{**eval_data(found, len(self.validation), started), **self.figures(found)},
        )
        if not self.is_done:
            self.emit("phase", name="training", done=self.progress.step, total=self.total_steps, unit="steps")
        return found.loss

    def _choose_weights(self) -> None:
        """Tells why the training ended before its last step, and puts back the weights of the lowest validation loss where asked for."""
        progress = self.progress
        if self._finished and progress.step < self.total_steps:
            self._tell(f"Finished after step {progress.step} of {self.total_steps} on request: what was trained so far is what is kept.")
        elif self._stops_early:
            self._tell(f"Stopped after step {progress.step}: the validation loss has not fallen for {progress.without_gain} evaluations.")
        self.kept_step = progress.step
        if self.spec.final_weights == "last" or progress.best_step is None:
            return
        if progress.best_step != progress.step:
            path = checkpoint.of_step(self._folders, progress.best_step)
            if path is None:
                self._warn(
                    "best_weights_lost",
                    f"The checkpoint of step {progress.best_step}, which had the lowest validation loss, is damaged or gone.",
                    f"The weights of step {progress.step} are kept in its place.",
                )
                return
            self._load(path)
            self.kept_step = progress.best_step
        self._tell(f"The weights of step {progress.best_step} are kept: their validation loss, {progress.best_loss:.4f}, was the lowest.")

    def _is_checkpoint_due(self, *, best: bool) -> bool:
        if self.is_done or (best and self.spec.final_weights == "best"):
            return True
        return self.progress.nonfinite == 0 and self.clock.due(self.progress.step, best=best)

    def save(self, *, best: bool = False) -> None:
        """Writes a checkpoint, tells of it, and removes what is no longer needed."""
        started = time.monotonic()
        saved = checkpoint.save(
            self.out / "checkpoints",
            self.progress.step,
            weights={name: parameter.detach().contiguous() for name, parameter in self.parameters.items()},
            optimiser=self.optimiser.tensors(),
            method=self.hooks.state(),
            state={
                **asdict(self.progress),
                "scaler": self.scaler.state_dict(),
                "fingerprint": dict(self.fingerprint),
                "compiled": self.libraries.in_use,
            },
            best=best,
        )
        checkpoint.rotate(self.out / "checkpoints")
        seconds = time.monotonic() - started
        self.clock.saved(self.progress.step, seconds)
        path = str(saved.path.relative_to(self.out))
        self.emit("checkpoint", step=saved.step, path=path, bytes=saved.bytes, seconds=seconds, best=best)

    def restore(self, path: Path, folders: Sequence[Path] = ()) -> None:
        """Continues from a checkpoint that `checkpoint.verify` accepts; `folders` are those where the best one may be, besides our own.

        Raises `UserError("resume_mismatch")` where the checkpoint is another run's.
        """
        state = checkpoint.read_state(path)
        checkpoint.require_same_run(path, state, self.fingerprint)
        self._load(path)
        self.optimiser.restore(checkpoint.read_moments(path))
        self.scaler.load_state_dict(state["scaler"])
        self.libraries.go_on(compiled=state["compiled"])
        self.progress = Progress(**{name: state[name] for name in Progress.__dataclass_fields__})
        self._go_on_for_longer(path, state)
        self.clock.saved(self.progress.step, 0.0)
        self._folders = [self.out, *folders]

    def _go_on_for_longer(self, path: Path, state: Mapping[str, Any]) -> None:
        """Tells what it means that the run was extended: the schedule is laid over all its steps, and early stopping counts from here.

        Raises `UserError("resume_mismatch")` where no step would be left to do.
        """
        if not checkpoint.is_of_another_length(state, self.fingerprint):
            return
        if self.progress.step >= self.total_steps:
            raise UserError("resume_mismatch", path=path, what="epochs")
        self.progress.without_gain = 0
        self._warn(
            "length_changed",
            f"The training was extended: it goes on after step {self.progress.step} to step {self.total_steps}, and the learning rate "
            "follows its schedule over all of these steps.",
            "Nothing to do, if that is meant: the curve has a bend there, and another run of this length from the start may end elsewhere.",
        )

    @torch.no_grad()
    def _load(self, path: Path) -> None:
        """Takes the weights of a checkpoint, and what the method keeps beside them."""
        weights = checkpoint.read_weights(path)
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])
        self.hooks.restore(checkpoint.read_method(path))
        self.forward.refresh()


def eval_data(found: DatasetLoss, rows: int, started: float) -> dict[str, Any]:
    """The measured part of an `eval` event where only the loss was asked for, less what `Trainer.figures` adds; `started` is a reading of
    `time.monotonic`.
    """
    return {
        **NOTHING_MEASURED,
        "loss": found.loss,
        "rows": rows,
        "tokens": found.tokens,
        "seconds": time.monotonic() - started,
    }
