"""Runs with a past, for the pages: events as the engine writes them, archived and folded as the supervisor does."""

from __future__ import annotations

import hashlib
import math
import random
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.timezone import now

from jobs.events import Event, finite
from webapp.runs import lease
from webapp.runs.fold import fold
from webapp.runs.listed import listed
from webapp.runs.models import Artifact, Record, Run
from webapp.runs.states import State

STEP_SECONDS = 0.4
DEVICE = {"kind": "cpu", "name": "8-core processor", "memory_bytes": 16_000_000_000, "threads": 8, "bfloat16": False, "count": 1}
LABELS = ("billing", "refund", "login", "shipping")


class Story:
    """Writes the events of one attempt of a run, in order."""

    def __init__(self, run: Run, attempt: int = 1, total_steps: int = 500) -> None:
        self.run, self.attempt, self.total = run, attempt, total_steps
        self.random = random.Random(attempt)  # noqa: S311 - the same noise every time
        self.t = datetime(2026, 11, 1, 10, 0, tzinfo=UTC).timestamp() + 10_000 * attempt
        self.events: list[Event] = []

    def emit(self, kind: str, **data: Any) -> Event:
        """One event, as `jobs.events.EventWriter` would write it."""
        self.t += STEP_SECONDS
        event = Event(len(self.events) + 1, self.t, kind, finite(data))
        self.events.append(event)
        return event

    def begin(self, start_step: int = 0) -> Story:
        """Everything before the first step."""
        self.emit("phase", name="loading", done=0, total=2, unit="tensors")
        self.emit("phase", name="loading", done=2, total=2, unit="tensors")
        self.emit("phase", name="tokenizing", done=600, total=600, unit="rows")
        self.emit(
            "plan", total_steps=self.total, epochs=3.0, steps_per_epoch=self.total / 3, start_step=start_step, resumed_from=None,
            train_rows=570, validation_rows=30, test_rows=60, train_tokens=48_000, label_tokens=1_900, cut_rows=0,
            trainable_parameters=4_884_480, total_parameters=139_399_488, micro_batch=8, gradient_accumulation=2, effective_batch=16,
            max_length=128, precision="float32", batching="packed", device=DEVICE,
        )  # fmt: skip
        self.emit("phase", name="training", done=start_step, total=self.total, unit="steps")
        self.emit("log", level="info", message="Adapter on 210 linear layers, rank 16")
        return self

    def steps(self, first: int, last: int, *, nonfinite: int = 0) -> Story:
        """Steps with a falling loss, a validation every tenth of the run."""
        for step in range(first, last + 1):
            self.step(step, broken=step == nonfinite)
            if step % max(1, self.total // 10) == 0:
                loss = 0.35 + 2.2 * math.exp(-4 * step / self.total)
                self.evaluate("validation", "tuned", step, loss, None)
                self.emit("checkpoint", step=step, path=f"checkpoints/step-{step:08d}", bytes=58_000_000, seconds=0.3, best=True)
        return self

    def step(self, step: int, *, broken: bool = False) -> Event:
        """One step."""
        loss = 0.25 + 2.6 * math.exp(-5 * step / self.total) + self.random.uniform(0, 0.25)
        return self.emit(
            "step", step=step, epoch=3 * step / self.total, loss=math.nan if broken else loss,
            learning_rate=1e-4 * (1 + math.cos(math.pi * step / self.total)),
            gradient_norm=math.nan if broken else 0.4 + 2 * math.exp(-3 * step / self.total) * self.random.uniform(0.6, 1.4),
            tokens=96 * step, tokens_per_second=240.0 + self.random.uniform(-9, 9), elapsed_seconds=STEP_SECONDS * step,
            eta_seconds=STEP_SECONDS * (self.total - step), memory={"resident_bytes": 1_310_000_000 + 40_000 * min(step, 300)},
        )  # fmt: skip

    def evaluate(self, split: str, model: str, step: int, loss: float, accuracy: float | None) -> Event:
        """One evaluation; without an accuracy nothing was generated."""
        return self.emit(
            "eval", step=step, epoch=3 * step / self.total, split=split, model=model, loss=loss, perplexity=math.exp(loss),
            token_accuracy=math.exp(-loss), exact_match=accuracy, label_accuracy=accuracy, rows=60, tokens=190, seconds=14.0,
        )  # fmt: skip

    def ask(self, step: int, *answers: str) -> Story:
        """Answers of the model in training to the first of the prompts of `measure`."""
        for index, answer in enumerate(answers):
            self._answer("tuned", step, index, answer)
        return self

    def _answer(self, model: str, step: int, index: int, answer: str) -> None:
        label = LABELS[index]
        self.emit("sample", step=step, model=model, index=index, prompt=f"Ticket {index}: I was charged twice, pls help!!", answer=answer,
                  expected=label, correct=answer == label)  # fmt: skip

    def measure(self, model: str, loss: float, accuracy: float) -> Story:
        """The final evaluation of a model, with its samples."""
        self.evaluate("test", model, self.total, loss, accuracy)
        for index, label in enumerate(LABELS):
            base = model == "base"
            self._answer(model, 0 if base else self.total, index, "I'm sorry to hear that. Could you tell me" if base else label)
        return self

    def tell(self, state: State, **fields: Any) -> Run:
        """Archives and folds the events, and puts the run where they lead. Gives the run as it is then."""
        run = self.run
        Record.objects.bulk_create(
            Record(run=run, attempt=self.attempt, seq=event.seq, kind=event.kind, step=event.data.get("step"), at=event.t, data=event.data)
            for event in self.events
        )
        summary = run.summary
        for event in self.events:
            summary = fold(summary, event)
        steps = [event.data["step"] for event in self.events if event.kind == "step"]
        started = now() - timedelta(seconds=STEP_SECONDS * len(self.events))
        ended = now() if run.is_terminal or state in ("succeeded", "failed") else None
        values = {
            "state": state, "attempt": self.attempt, "summary": summary, "last_step": max(steps, default=0), "total_steps": self.total,
            "started_at": started, "finished_at": ended, "duration": (ended or now()) - started, **listed(summary), **fields,
        }  # fmt: skip
        Run.objects.filter(pk=run.pk).update(**values)
        lease.record(run.pk, to=state, actor="story", attempt=self.attempt)
        run.refresh_from_db()
        return run


def finished(run: Run, total_steps: int = 500) -> Run:
    """A run that succeeded, with base, tuned and merged model measured, an adapter and a merged model to download."""
    story = Story(run, total_steps=total_steps).begin().steps(1, total_steps)
    for tenth, answers in ((2, ("refund", "refund", "refund")), (5, ("billing", "refund", "refund")), (8, ("billing", "refund", "login"))):
        story.ask(tenth * total_steps // 10, *answers)
    story.emit("phase", name="evaluating", done=60, total=60, unit="rows")
    story.measure("base", 3.1, 0.1).measure("tuned", 0.12, 0.95).measure("merged", 0.121, 0.95)
    story.emit("phase", name="merging", done=30, total=30, unit="tensors")
    story.emit("finished", outcome="succeeded", step=total_steps)
    story.tell(State.SUCCEEDED)
    publish(run, "adapter", "tickets-adapter.zip", {})
    publish(run, "merged", "tickets-merged.zip", {
        "merge_into": "original", "stored_dtype": "bfloat16", "merge_max_difference": 3.1e-5, "mean_kl": 1.2e-9, "top1_agreement": 1.0,
        "compared_rows": 8, "compared_positions": 512, "dtype": "float32", "loss": 0.121, "exact_match": 0.95,
    })  # fmt: skip
    return run


def publish(run: Run, kind: str, name: str, details: dict[str, Any]) -> Artifact:
    """A small real zip and its row."""
    folder = run.attempt_folder(run.attempt) / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    members = {"adapter_config.json": b"{}", "README.md": b"# tickets"}
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member, body in members.items():
            archive.writestr(member, body)
    body = (folder / name).read_bytes()
    files = [
        {"name": member, "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest(), "offset": body.index(text)}
        for member, text in members.items()
    ]
    return Artifact.objects.create(
        run=run, attempt=run.attempt, kind=kind, name=name, path=f"artifacts/{name}", bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(), files=files, details=details,
    )  # fmt: skip


def failed(run: Run) -> Run:
    """A run whose loss was not finite any more."""
    story = Story(run).begin().steps(1, 120, nonfinite=120)
    failure = {
        "failure_code": "nonfinite",
        "message": "The loss or the gradient was not finite for 3 steps in a row, last at step 120.",
        "remedy": "Lower the learning rate, or train in bf16 or fp32. The last finite checkpoint is kept.",
    }
    story.emit("finished", outcome="failed", step=120, code="nonfinite", message=failure["message"], remedy=failure["remedy"],
               where={"field": "training.learning_rate"})  # fmt: skip
    return story.tell(State.FAILED, last_checkpoint_step=100, exit_code=79, **failure)


def paused(run: Run) -> Run:
    """A run that was paused half-way."""
    return Story(run).begin().steps(1, 250).tell(State.PAUSED, desired="pause", last_checkpoint_step=250)


def running(run: Run) -> Run:
    """A run that trains."""
    return Story(run).begin().steps(1, 310).tell(State.RUNNING, last_checkpoint_step=300)


def composed(run: Run, **facts: Any) -> Run:
    """A composition that succeeded: base, each part and what was made of them measured, an adapter to download."""
    story = Story(run, total_steps=0)
    story.emit("phase", name="merging", done=0, total=None, unit="tensors")
    story.emit("method", step=0, name="composition", facts={"combination": run.spec["combination"], "modules": 210, **facts})
    story.emit("plan", total_steps=0, start_step=0, validation_rows=30, test_rows=60, precision="float32", device=DEVICE)
    parts = [f"adapter {number}" for number in range(1, len(run.spec["adapters"]) + 1)]
    for number, model in enumerate(("base", *parts, "tuned")):
        loss = 3.1 if model == "base" else 0.5 - 0.1 * number
        story.emit("eval", step=0, epoch=0.0, split="test", model=model, loss=loss, perplexity=math.exp(loss), token_accuracy=0.5,
                   exact_match=0.1 * number, rows=60, tokens=190, seconds=2.0)  # fmt: skip
        story.emit("sample", step=0, model=model, index=0, prompt="Ticket 0: charged twice", answer=f"said by {model}", expected="billing",
                   correct=model != "base")  # fmt: skip
    story.emit("finished", outcome="succeeded", step=0)
    story.tell(State.SUCCEEDED)
    publish(run, "adapter", "both-adapter.zip", {})
    return run
