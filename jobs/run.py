"""A run from its spec to its artifacts, in the order of its phases."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from jobs.data.token_cache import TokenCache, sha256
from jobs.data.tokens import LENGTH_CAP
from jobs.device import Device, choose_precision, torch_name
from jobs.errors import GraftError
from jobs.export.archive import unpack
from jobs.export.context import ExportContext
from jobs.export.export import export_run
from jobs.geometry import default_folder
from jobs.held_out import HeldOut
from jobs.methods.entry import Method, SettingValue
from jobs.methods.hooks import Hooks
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.models.architectures import require_task
from jobs.models.device import probe
from jobs.models.heads import fresh_heads
from jobs.models.loading import DTYPES, load_model, load_tokenizer
from jobs.samples import Samples
from jobs.spec import RunSpec
from jobs.tasks.registry import make_work
from jobs.tasks.work import Means, Rows, Work
from jobs.training import checkpoint
from jobs.training.fingerprint import fingerprint
from jobs.training.libraries import Libraries
from jobs.training.loop import Trainer
from jobs.training.order import Order
from jobs.training.rowsets import EncodedSets

# Rows whose loss is measured while training: enough for a smooth curve, few enough not to hold up the training.
VALIDATION_ROWS = 200
PARITY_ROWS = 8
Ask = Callable[[], bool]


@dataclass(frozen=True)
class Session:
    """What every phase needs: the spec and what follows from it, where to write, whom to tell, and whether the run is wanted to end.

    `work` is what the run's task does in each phase; `architecture` is the base model's.
    """

    spec: RunSpec
    work: Work
    architecture: str
    method: Method
    settings: dict[str, SettingValue]
    device: Device
    precision: str
    out: Path
    emit: Callable[..., Any]
    stop: Callable[[], bool]

    @classmethod
    def open(cls, spec: RunSpec, out: Path, emit: Callable[..., Any], stop: Callable[[], bool]) -> Session:
        """Looks at the device, and refuses by `UserError` what it, the method or the model cannot do."""
        method, device = get_method(spec.method.id), probe()
        settings = method.resolve(dict(spec.method.settings))
        method.check_task(spec.task)
        method.check_checkpointing(wanted=spec.training.gradient_checkpointing)
        method.check_adapters(spec.method.adapters)
        method.check_device(device)
        architecture = require_task(Path(spec.model.path), spec.task)
        work = make_work(spec.task)
        return cls(spec, work, architecture, method, settings, device, choose_precision(spec.training.precision, device), out, emit, stop)

    @property
    def torch_device(self) -> str:
        """The device in torch's words."""
        return torch_name(self.device)

    @property
    def device_facts(self) -> dict[str, Any]:
        """What a plan says of the device."""
        return {key: value for key, value in self.device.items() if key in ("kind", "name", "memory_bytes", "threads")}

    def phase(self, name: str, total: int | None, unit: str) -> Callable[[int], None]:
        """Opens a phase and returns what tells of its progress. That raises `GraftError("preempted")` where the run is wanted to end."""

        def report(done: int) -> None:
            if self.stop():
                raise GraftError("preempted", step=0)
            self.emit("phase", name=name, done=done, total=total, unit=unit)

        self.emit("phase", name=name, done=0, total=total, unit=unit)
        return report


def execute(
    spec: RunSpec, out: Path, resume: Sequence[Path], *, emit: Callable[..., Any], stop: Ask, cache: TokenCache, finish: Ask = bool
) -> int:
    """Carries a run out and returns the step it ended at. `resume` are folders that may hold its checkpoints, `cache` keeps token ids.
    `finish` says that the training is to end after the step in hand, and its result to be measured and exported.

    Raises `GraftError` (`preempted` when `stop()` said so), or whatever else went wrong.
    """
    session = Session.open(spec, out, emit, stop)
    torch.set_num_threads(session.device["threads"])
    trainer, held_out, start = prepare(session, resume, cache)
    trainer.finish, trainer.sample = finish, Samples(trainer, held_out)
    emit("plan", **_plan(session, trainer, held_out.encoded, start))
    _tell_of_rows(session, held_out.encoded)

    with _saving(trainer):
        with as_base(trainer):
            held_out.compare("base", trainer, again=False)
        if trainer.progress.step == 0 and trainer.validation and held_out.rows.held_out_split != "validation":
            trainer.validate("base")
        trainer.run()
        held_out.compare("tuned", trainer)
    export(session, trainer, held_out)
    return trainer.progress.step


def prepare(session: Session, resume: Sequence[Path], cache: TokenCache) -> tuple[Trainer, HeldOut, str | None]:
    """All that comes before the first step: the trainer, the rows that models are compared on, and the name of the checkpoint that the
    trainer goes on from. Raises `UserError`.
    """
    rows, tokenizer = tokenise(session, cache)
    model = load(session, tokenizer)
    encoded = rows.encoded(session.spec.training, length_limit(model, session.method.virtual_tokens(session.settings)))
    adapters = _adapters(session)
    mine = fingerprint(session.spec, encoded.train.rows, adapters)
    kept = _kept(mine, [session.out, *resume])
    setup = _setup(session, encoded, tokenizer, adapters=adapters, heads=fresh_heads(model), kept=kept)
    trainer = _trainer(session, apply_method(session.method, model, session.settings, setup), setup, encoded, mine)
    return trainer, HeldOut(session, rows, encoded, tokenizer), _restore(trainer, resume)


def tokenise(session: Session, cache: TokenCache) -> tuple[Rows, Any]:
    """The rows, and the tokenizer."""
    report = session.phase("tokenizing", None, "rows")
    tokenizer = load_tokenizer(Path(session.spec.model.path), writes=session.work.needs_end)
    return session.work.read(session.spec, tokenizer, architecture=session.architecture, cache=cache, report=report), tokenizer


def load(session: Session, tokenizer: Any) -> Any:
    """The base model, with what the task puts upon it."""
    report = session.phase("loading", None, "tensors")
    model = load_model(
        Path(session.spec.model.path),
        precision=session.precision,
        trains_base=not session.method.capabilities.adapter,
        bits=session.method.base_bits(session.settings),
        device=session.torch_device,
        head=session.work.head(tokenizer, session.spec.seed),
    )
    report(sum(1 for _ in model.parameters()))
    return model


def length_limit(model: Any, taken: int = 0) -> int:
    """The positions that the model knows, where its config says so, less those `taken` by virtual tokens; RoBERTa and its like begin to
    count behind the padding token's.
    """
    limit: int = getattr(model.config, "max_position_embeddings", None) or LENGTH_CAP
    counted = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    before = max((padding + 1 for module in counted if (padding := getattr(module, "padding_idx", None)) is not None), default=0)
    return limit - before - taken


def _adapters(session: Session) -> tuple[Path, ...]:
    """The folders of the finished adapters that the method builds on."""
    return tuple(unpack(Path(path), session.out / ".adapters" / str(number)) for number, path in enumerate(session.spec.method.adapters))


def _setup(
    session: Session,
    encoded: EncodedSets,
    tokenizer: Any,
    *,
    adapters: tuple[Path, ...] = (),
    heads: tuple[str, ...] = (),
    kept: Mapping[str, Any] | None = None,
) -> Setup:
    """What the method is told of the run."""
    spec, rows = session.spec, encoded.train.rows
    order = Order(len(rows), spec.training.micro_batch, spec.training.gradient_accumulation, spec.seed)
    return Setup(
        seed=spec.seed,
        task=spec.task,
        total_steps=order.total_steps(spec.training.epochs, spec.training.max_steps),
        rows=rows,
        tokenizer=tokenizer,
        heads=heads,
        adapters=adapters,
        base_folder=Path(spec.model.path),
        kept=kept or {},
        progress=_start_progress(session),
    )


def _kept(mine: dict[str, Any], folders: Sequence[Path]) -> dict[str, torch.Tensor]:
    """What the method left in the checkpoint that the run goes on from. Raises `UserError("resume_mismatch")`."""
    path = checkpoint.newest(folders)
    if path is None:
        return {}
    checkpoint.require_same_run(path, checkpoint.read_state(path), mine)
    return checkpoint.read_method(path)


def _start_progress(session: Session) -> Callable[[int, int, str], None]:
    """Tells how far a method's start is, a hundred times at most, and ends the run where that is wanted."""

    def report(done: int, total: int, unit: str) -> None:
        if session.stop():
            raise GraftError("preempted", step=0)
        if done * 100 // total > (done - 1) * 100 // total:
            session.emit("phase", name="loading", done=done, total=total, unit=unit)

    return report


def apply_method(method: Method, model: Any, settings: dict[str, SettingValue], setup: Setup) -> Any:
    """The model as the method makes it trainable. Raises `UserError("method_cannot")` where the method does not fit the model."""
    return _load_name(method.application)(model, settings, setup)


def make_hooks(method: Method, model: Any, settings: dict[str, SettingValue], setup: Setup) -> Hooks:
    """What the method does between the steps; `model` is what `apply_method` gave."""
    made: Hooks = (_load_name(method.hooks) if method.hooks else Hooks)(model, settings, setup)
    return made


def _load_name(name: str) -> Any:
    """What an import string of the catalogue names."""
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)


def _trainer(session: Session, model: Any, setup: Setup, encoded: EncodedSets, mine: dict[str, Any]) -> Trainer:
    """The trainer of the run whose fingerprint is `mine`, and a warning for each reason not to take the fast path."""
    spec = session.spec
    compiles = spec.engine.compile and session.torch_device == "cpu"
    libraries = Libraries(default_folder() if compiles else None, exact=session.precision == "float32")
    means = Means(DTYPES[session.precision], session.torch_device)
    forward, reasons = session.work.forward(model, encoded.train.rows[: spec.training.micro_batch], means, spec)
    for reason in reasons:
        session.emit("warning", code="slow_path", message=reason, remedy="Nothing to do: the result is the same, it only takes longer.")
    return Trainer(
        forward=forward,
        rows=encoded.train.rows,
        validation=encoded.validation.rows[:VALIDATION_ROWS],
        spec=spec.training,
        learning_rate=spec.training.learning_rate or session.method.learning_rate,
        seed=spec.seed,
        out=session.out,
        emit=session.emit,
        stop=session.stop,
        fingerprint=mine,
        engine=spec.engine,
        rate_of=partial(session.method.rate_factor, session.settings),
        libraries=libraries,
        hooks=make_hooks(session.method, model, session.settings, setup),
        figures=session.work.figures,
    )


def _restore(trainer: Trainer, resume: Sequence[Path]) -> str | None:
    """Continues from the newest whole checkpoint of `resume` and the run's own folder; returns its name."""
    path = checkpoint.newest([trainer.out, *resume])
    if path is None:
        return None
    trainer.restore(path, resume)
    return path.name


def _plan(session: Session, trainer: Trainer, encoded: EncodedSets, start: str | None) -> dict[str, Any]:
    training = session.spec.training
    trainable, total = _parameters(trainer.forward.model)
    return {
        "total_steps": trainer.total_steps,
        "epochs": trainer.total_steps / trainer.order.steps_per_epoch,
        "steps_per_epoch": trainer.order.steps_per_epoch,
        "start_step": trainer.progress.step,
        "resumed_from": start,
        "train_rows": len(encoded.train.rows),
        "validation_rows": len(encoded.validation.rows),
        "test_rows": len(encoded.test.rows),
        "train_tokens": encoded.train.tokens,
        "label_tokens": encoded.train.label_tokens,
        "cut_rows": encoded.train.cut,
        "trainable_parameters": trainable,
        "total_parameters": total,
        "micro_batch": training.micro_batch,
        "gradient_accumulation": training.gradient_accumulation,
        "effective_batch": trainer.order.effective_batch,
        "max_length": encoded.train.max_length,
        "precision": session.precision,
        "fresh_modules": list(fresh_heads(trainer.forward.model)),
        "batching": "packed" if trainer.forward.packs else "padded",
        "device": session.device_facts,
    }


def _parameters(model: Any) -> tuple[int, int]:
    """(trained, all); a 4-bit weight counts as the numbers it stands for."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
        return int(trainable), int(total)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def _tell_of_rows(session: Session, encoded: EncodedSets) -> None:
    """Warns of rows that were cut or have nothing left to learn from: never silently."""
    train = encoded.train
    if train.cut:
        session.emit(
            "warning",
            code="rows_cut",
            message=f"{train.cut} rows are longer than {train.max_length} tokens and were cut there.",
            remedy="Raise the maximum length to keep them whole.",
        )
    if train.dropped:
        session.emit(
            "warning",
            code="rows_dropped",
            message=f"{train.dropped} rows have no token to learn from and were left out.",
            remedy="Check for empty answers, or raise the maximum length.",
        )


@contextmanager
def as_base(trainer: Trainer) -> Iterator[None]:
    """The base model, as it was before the method changed it."""
    try:
        with trainer.hooks.as_base():
            trainer.forward.refresh()
            yield
    finally:
        trainer.forward.refresh()


@contextmanager
def _saving(trainer: Trainer) -> Iterator[None]:
    """Where the run is to end while a model is being measured, leaves a checkpoint of the step reached."""
    try:
        yield
    except GraftError as stopped:
        if stopped.code != "preempted" or checkpoint.is_saved(trainer.out / "checkpoints", trainer.progress.step):
            raise
        trainer.save()
        raise GraftError("preempted", step=trainer.progress.step) from None


def export(session: Session, trainer: Trainer, held_out: HeldOut) -> None:
    """Leaves the artifacts; their logits are compared on held-out rows, on training rows where none were held out."""
    spec, forward, encoded = session.spec, trainer.forward, held_out.encoded
    forward.model.eval()
    compared = encoded.of(held_out.rows.held_out_split).rows or encoded.train.rows
    export_run(
        ExportContext(
            model=forward.model,
            tokenizer=held_out.tokenizer,
            spec=spec,
            method=session.method,
            settings=session.settings,
            hooks=trainer.hooks,
            base_folder=Path(spec.model.path),
            out=session.out,
            results={name: data for name, data in trainer.progress.results.items() if name != "probe"},
            probe=trainer.progress.results["probe"],
            precision=session.precision,
            facts=_facts(spec, trainer, encoded),
            held_out=session.work.compared(compared[:PARITY_ROWS]),
            head=session.work.head(held_out.tokenizer, spec.seed),
            logits=session.work.logits,
            emit=session.emit,
            reevaluate=lambda model, name: held_out.measure(forward.of(model), name, trainer),
        )
    )


def _facts(spec: RunSpec, trainer: Trainer, encoded: EncodedSets) -> dict[str, Any]:
    """What the model card says beside the spec."""
    files = [name for name in (spec.data.train, spec.data.validation, spec.data.test) if name]
    return {
        "data": {Path(name).name: sha256(Path(name)) for name in files},
        "steps": trainer.progress.step,
        "weights_of_step": trainer.kept_step,
        "epochs": trainer.epoch,
        "rows": len(encoded.train.rows),
        "tokens": trainer.progress.tokens,
        "seconds": round(trainer.progress.seconds, 1),
        "precision": str(trainer.forward.dtype).removeprefix("torch."),
    }
