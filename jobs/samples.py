"""What the model in training answers to some of the held-out prompts, the same each time: how its answers change is seen while it learns.

It costs little by construction: `PROMPTS` prompts, at most `TOKENS` tokens each, `TIMES` times in a run at most, where the model is looked
at anyway, and not before what it has taken so far is below `SHARE` of the time that the steps took: all in all that share of the training,
and one time more. The answers are greedy, the generators of random numbers are left alone and nothing of the model's state changes, so that
the curve is the same with and without. When it is asked hangs on the clock, what it answers does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property

from jobs.held_out import HeldOut, arithmetic
from jobs.tasks.work import Sampler
from jobs.training.loop import Trainer

PROMPTS = 3
TOKENS = 64
TIMES = 8
SHARE = 0.02


@dataclass
class Samples:
    """The samples of one attempt of a run: call it wherever the model is looked at. Made once the trainer stands where it begins."""

    trainer: Trainer
    held_out: HeldOut
    spent_seconds: float = 0.0
    _part: int = field(init=False)
    _seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self._part, self._seconds = self._parts_done, self.trainer.progress.seconds

    def __call__(self) -> None:
        """Asks, and emits a `sample` event for each answer, where a part of the run is done since the last time and time is left for it."""
        trained = self.trainer.progress.seconds - self._seconds
        if self._parts_done == self._part or (self.spent_seconds and self.spent_seconds >= SHARE * trained) or self.trainer.stop():
            return
        self._part = self._parts_done
        started = time.monotonic()
        if self._sampler is not None:
            self._ask(self._sampler)
        self.spent_seconds += time.monotonic() - started

    def _ask(self, sampler: Sampler) -> None:
        trainer = self.trainer
        trainer.emit("phase", name="evaluating", done=0, total=PROMPTS, unit="rows")
        trainer.forward.model.eval()
        with arithmetic(trainer.forward):
            found = sampler(trainer.forward)
        for sample in found:
            trainer.emit("sample", step=trainer.progress.step, model="tuned", **sample)
        trainer.emit("phase", name="training", done=trainer.progress.step, total=trainer.total_steps, unit="steps")

    @property
    def _parts_done(self) -> int:
        """How many `TIMES`-th parts of the run are behind."""
        return self.trainer.progress.step * TIMES // self.trainer.total_steps

    @cached_property
    def _sampler(self) -> Sampler | None:
        spec = self.held_out.session.spec.evaluation
        bounded = replace(spec, max_new_tokens=min(spec.max_new_tokens, TOKENS))
        return self.held_out.session.work.sampler(self.held_out.held, bounded, PROMPTS)
