"""Runs of the matrix: the phases of `jobs.run`, one by one, so that a check can look in between."""

from __future__ import annotations

import logging
import random
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

import jobs.run
from jobs.data.token_cache import TokenCache
from jobs.held_out import HeldOut
from jobs.methods.hooks import Reset
from jobs.models.heads import Head
from jobs.models.loading import load_model
from jobs.run import Session
from jobs.spec import DataSpec, EngineSpec, EvaluationSpec, ExportSpec, MethodSpec, ModelSpec, RunSpec, Task, TrainingSpec
from jobs.training.loop import Trainer
from tests.matrix.models import ROWS, Material

STEPS = 8
MIDDLE = 4

_disturbances = count(1)


@dataclass
class Events:
    """Keeps what a run emits."""

    all: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def emit(self, kind: str, /, **data: Any) -> None:
        """Takes one event."""
        self.all.append((kind, data))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of the events of one kind, in order."""
        return [data for found, data in self.all if found == kind]


@dataclass(frozen=True)
class Prepared:
    """A run up to its first step."""

    session: Session
    trainer: Trainer
    held_out: HeldOut
    events: Events

    @property
    def head(self) -> Head:
        """What the task puts upon the base."""
        return self.session.work.head(self.held_out.tokenizer, self.session.spec.seed)

    def load_base(self) -> Any:
        """The base model afresh, as the run loaded it."""
        session = self.session
        trains, bits = not session.method.capabilities.adapter, session.method.base_bits(session.settings)
        folder = Path(session.spec.model.path)
        return load_model(folder, precision=session.precision, trains_base=trains, bits=bits, head=self.head)

    @property
    def model(self) -> Any:
        """The model as the method made it."""
        return self.trainer.forward.model

    def named(self) -> dict[str, torch.Tensor]:
        """Every parameter and buffer of the model by name, those that are not saved too."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def measure(self, name: str) -> None:
        """Measures the model as it is on the held-out rows."""
        self.held_out.compare(name, self.trainer)

    def export(self) -> None:
        """Leaves the artifacts in the run's folder."""
        jobs.run.export(self.session, self.trainer, self.held_out)

    def as_base(self) -> Any:
        """Within it the model is what `base` is measured on."""
        return jobs.run.as_base(self.trainer)


def make_spec(
    method: str,
    settings: dict[str, Any],
    task: Task,
    material: Material,
    adapters: Sequence[Path] = (),
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> RunSpec:
    """A run in float32 whose every step is a whole epoch, so that losses of steps compare; held-out rows are those trained on.

    Constant learning rate, the method's own.
    """
    return RunSpec(
        model=ModelSpec(path=str(material.model), name="acme/tiny"),
        data=DataSpec(train=str(material.rows), validation=str(material.rows)),
        task=task,
        method=MethodSpec(id=method, settings=settings, adapters=[str(folder) for folder in adapters]),
        training=TrainingSpec(
            epochs=1000, max_steps=steps, schedule="constant", warmup_share=0.0, micro_batch=ROWS // 2, gradient_accumulation=2,
            precision="float32", checkpoint_every_steps=MIDDLE, evaluate_every_steps=MIDDLE,
        ),
        engine=EngineSpec(compile=False),
        evaluation=EvaluationSpec(generate=False, samples=0, retention=False),
        export=ExportSpec(merge="both", dtype="float32"),
        seed=seed,
        name="matrix",
    )  # fmt: skip


def prepare(spec: RunSpec, out: Path, resume: Sequence[Path] = ()) -> Prepared:
    """A run up to its first step, or to the step of the checkpoint that it resumes.

    The global generators stand elsewhere each time: a run must draw from its own seed alone.
    """
    _disturb(next(_disturbances))
    events = Events()
    out.mkdir(parents=True, exist_ok=True)
    session = Session.open(spec, out, events.emit, lambda: False)
    trainer, held_out, _ = jobs.run.prepare(session, resume, TokenCache(out.parent / "tokens"))
    return Prepared(session, trainer, held_out, events)


def finished_adapter(spec: RunSpec, out: Path) -> Path:
    """The folder of the adapter that a whole run of `spec` leaves."""
    run = prepare(replace(spec, export=ExportSpec(merge="none")), out)
    with run.as_base():
        run.measure("base")
    run.trainer.run()
    run.export()
    return unzip(run, run.events.of("artifact")[0], out / "adapter")


def note_gradients(trainer: Trainer) -> set[str]:
    """The names of the trained weights that have had a gradient which is not all zeros; it fills while the trainer runs."""
    reached: set[str] = set()
    act = trainer.hooks.after_update

    def after_update(step: int, reset: Reset) -> None:
        reached.update(name for name, weight in trainer.parameters.items() if weight.grad is not None and bool(weight.grad.any()))
        act(step, reset)

    trainer.hooks.after_update = after_update  # type: ignore[method-assign]
    return reached


def unzip(run: Prepared, artifact: dict[str, Any], folder: Path) -> Path:
    """The files of an artifact (the data of its event), as a user gets them."""
    with zipfile.ZipFile(run.session.out / artifact["path"]) as archive:
        archive.extractall(folder)
    return folder


def quiet() -> None:
    """For a command: leaves its own words alone on the screen, and one core to others."""
    torch.set_num_threads(1)
    disable_progress_bar()
    warnings.simplefilter("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line for each layer of each step


def _disturb(number: int) -> None:
    torch.manual_seed(1000 + number)
    np.random.seed(1000 + number)
    random.seed(1000 + number)
