"""What every method must keep, checked on one method, task and kind of base at a time by a real run of a small model."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file

from jobs.errors import GraftError
from jobs.export.merge import merge
from jobs.methods.adapter import count_trained, read_config
from jobs.methods.entry import BASE_BITS, Bits, Method
from jobs.methods.registry import get_method, know_tuners
from jobs.models.attention import plain_inference
from jobs.models.frame import read_frame
from jobs.models.heads import CAUSAL
from jobs.models.loading import load_model
from jobs.models.opened import open_model
from jobs.spec import RunSpec, Task
from jobs.training.forward import base_model
from tests.matrix.models import Material, architectures, material
from tests.matrix.outside import Inputs, Outside
from tests.matrix.running import MIDDLE, STEPS, finished_adapter, make_spec, note_gradients, prepare, unzip

# The loss of the rows trained on must fall by this share of itself at the method's own learning rate, in `STEPS` steps.
LEAST_FALL = 1e-4
# Largest difference of logits that the rounding of float32 explains, as a share of the largest logit.
ROUNDING = 2e-5
# The same between an update that is added to a layer's outputs and one that is added to its weight.
ROUNDING_OF_MERGE = 4e-5
# How many times the rounding the training must move the logits, so that the checks of a download mean something.
TELLING = 10
# LLM.int8 rounds a layer's inputs to codes as well: no merged weight does.
CODES_OF_INPUTS = 0.25
# One task that writes and one that puts a head upon the model.
EVERY_BASE = ("causal_lm", "sequence_classification")
# Checks whose results the later ones look at.
NEEDED = ("trains", "export")


@dataclass(frozen=True)
class Cell:
    """One place of the matrix."""

    method: str
    task: Task
    bits: Bits
    architecture: str

    def __str__(self) -> str:
        return f"{self.method}-{self.task}-{self.bits}bit-{self.architecture}"


@dataclass
class Report:
    """What was found: for each check its fault, empty where it holds."""

    cell: Cell
    faults: dict[str, str] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    trained: int = 0

    @property
    def failed(self) -> dict[str, str]:
        """The checks that do not hold, with their faults."""
        return {name: fault for name, fault in self.faults.items() if fault}

    def __str__(self) -> str:
        lines = [f"{self.cell}: {len(self.faults) - len(self.failed)} of {len(self.faults)} hold ({self.seconds:.1f} s)"]
        return "\n".join([*lines, *(f"  {name}: {fault}" for name, fault in self.failed.items())])


@dataclass
class Workplace:
    """Where cells are worked on: the folder that holds the small models, and the processes that read downloads."""

    root: Path
    stranger: Outside = field(default_factory=lambda: Outside(graft=False))
    fresh: Outside = field(default_factory=lambda: Outside(graft=True))

    def close(self) -> None:
        """Ends the processes."""
        for reader in (self.stranger, self.fresh):
            reader.__exit__(None, None, None)


def cells(method: Method) -> Iterator[Cell]:
    """Every task that a method claims, by each kind of model on its usual base; those of `EVERY_BASE` on each base, by the first kind."""
    bases = method.capabilities.bases
    for task in method.capabilities.tasks:
        for place, architecture in enumerate(architectures(method, task)):
            for bits in bases if task in EVERY_BASE and place == 0 else bases[:1]:
                yield Cell(method.id, task, bits, architecture)


def check(cell: Cell, place: Workplace, out: Path) -> Report:
    """Trains the cell's method in `out` (a new folder) and looks whether all holds that the catalogue says of it."""
    started = time.monotonic()
    report, method = Report(cell), get_method(cell.method)
    given = material(place.root, cell.architecture, cell.task)
    spec = make_spec(cell.method, _settings(method, cell.bits), cell.task, given, adapters_for(method, cell.task, given, out))
    trial = _Trial(cell, method, spec, out=out, place=place)
    for name, holds in trial.checks().items():
        report.faults[name], report.traces[name] = _outcome(holds)
        if name in NEEDED and report.traces[name]:
            break  # the rest has nothing to look at
    report.trained = trial.trained
    report.seconds = time.monotonic() - started
    return report


def _settings(method: Method, bits: Bits) -> dict[str, Any]:
    return {BASE_BITS: str(bits)} if len(method.capabilities.bases) > 1 else {}


def adapters_for(method: Method, task: Task, given: Material, out: Path) -> list[Path]:
    """Finished adapters for a method that builds on some, each of a short run with a seed of its own."""
    found = []
    for seed in range(method.capabilities.adapters):
        first = make_spec(method.capabilities.adapters_of[0], {}, task, given, steps=2, seed=seed)
        found.append(finished_adapter(first, out / f"first-{seed}"))
    return found


def _outcome(holds: Callable[[], str]) -> tuple[str, str]:
    """(fault, trace) of one check; what it raises is a fault of the method."""
    try:
        return holds(), ""
    except Exception as failure:  # noqa: BLE001 a method may fail in any way, and the other checks go on
        words = " ".join(str(failure).split())[:400]
        return f"{type(failure).__name__}: {words}", traceback.format_exc()


class _Trial:
    """One run of a cell and what is made of it."""

    def __init__(self, cell: Cell, method: Method, spec: RunSpec, *, out: Path, place: Workplace) -> None:
        self.cell, self.method, self.spec, self.out, self.place = cell, method, spec, out, place
        self.base = Path(spec.model.path)
        self.trained = 0

    def checks(self) -> dict[str, Callable[[], str]]:
        """The checks by name, in an order in which each may use what the ones before it made."""
        found = {
            "trains": self.trains, "told": self.is_told, "base": self.base_is_measured, "frozen": self.frozen_is_untouched,
            "gradient": self.all_get_gradients, "resume": self.resumes_exactly, "export": self.exports, "reload": self.reloads,
            "outside": self.loads_outside, "merge": self.merges,
        }  # fmt: skip
        return found

    def trains(self) -> str:
        """The loss goes down at the method's own learning rate, or at a tenth of it: models of usual width bear more than one 64 wide."""
        if not (fault := self._train(self.out / "straight")):
            return ""
        self.spec = replace(self.spec, training=replace(self.spec.training, learning_rate=self.method.learning_rate / 10))
        return f"{again}; at its own learning rate: {fault}" if (again := self._train(self.out / "slower")) else ""

    def _train(self, out: Path) -> str:
        """One run, and what is looked at before and after it; says how the loss did not fall."""
        self.__dict__.pop("inputs", None)  # those of an earlier run
        run = self.run = prepare(self.spec, out)
        self.before = {name: tensor.detach().clone() for name, tensor in run.named().items()}
        self.trained = sum(parameter.numel() for parameter in run.trainer.parameters.values())
        if not self.trained:
            return "nothing is trained"
        self.reached = note_gradients(run.trainer)
        with run.as_base():
            self.base_found = _logits(run.model, self.inputs)
            run.measure("base")
        start = run.trainer.validate("base")
        run.trainer.run()
        run.measure("tuned")
        self.tuned = _logits(run.model, self.inputs)
        end = run.trainer.validate("tuned")
        least = TELLING * (ROUNDING_OF_MERGE if self.method.capabilities.merges else ROUNDING)
        if not _apart(self.base_found, self.tuned, "", least):
            return "the logits moved too little to tell a right download from a wrong one"
        return "" if end < start * (1 - LEAST_FALL) else f"the loss went from {start:.6f} to {end:.6f} in {STEPS} steps"

    def is_told(self) -> str:
        """What is told before a launch, from the files of the base alone, is what trains."""
        frame = read_frame(self.base, self.cell.task, int(self.run.head.config.get("num_labels", 1)))
        finished = [config for folder in self.spec.method.adapters if (config := read_config(Path(folder)))]
        settings = self.method.resolve(dict(self.spec.method.settings))
        adapter = self.method.plan_adapter(settings, frame, finished)
        told = count_trained(adapter, frame)
        if told is None:
            return "" if adapter and adapter.unknown else "nothing is told, and no reason given"
        return "" if told == self.trained else f"{told} numbers are told, {self.trained} train"

    @cached_property
    def inputs(self) -> list[Inputs]:
        """What the model is given where logits are compared: single rows where it writes, else a batch of two."""
        rows = self.run.trainer.rows[:2]
        if self.cell.task == "causal_lm":
            return [{"input_ids": torch.from_numpy(row.ids.astype(np.int64))[None]} for row in rows]
        inputs = dict(self.run.trainer.forward.batch(rows).inputs)
        if (labels := inputs.pop("labels", None)) is not None:  # with labels some methods add a penalty to a loss that nobody asked for
            inputs["decoder_input_ids"] = base_model(self.run.model).prepare_decoder_input_ids_from_labels(labels)
        return [inputs]

    def base_is_measured(self) -> str:
        """What a run measures as `base` is the model as it was loaded."""
        base = _logits(self.run.load_base(), self.inputs)
        return _apart(base, self.base_found, "the model with its adapter off")

    def frozen_is_untouched(self) -> str:
        """All that is not trained has the bits of before, but for what the hooks keep."""
        trained, kept = self.run.trainer.parameters, list(self.run.trainer.hooks.state().values())
        changed = [
            name
            for name, tensor in self.run.named().items()
            if name not in trained and not _same(tensor, self.before[name]) and not any(_same(tensor, state) for state in kept)
        ]
        return f"{len(changed)} frozen tensors changed, {changed[0]} among them" if changed else ""

    def all_get_gradients(self) -> str:
        """Every trained weight gets a gradient that is not all zeros, at some step."""
        still = [name for name in self.run.trainer.parameters if name not in self.reached]
        return f"{len(still)} of {len(self.run.trainer.parameters)} trained weights got no gradient, {still[0]} among them" if still else ""

    def resumes_exactly(self) -> str:
        """A run that goes on from the checkpoint in the middle ends with the same bits, by the same losses."""
        folder = self.run.session.out / "checkpoints"
        again = prepare(self.spec, self.out / "resumed", [folder / f"step-{MIDDLE:08d}"])
        if again.trainer.progress.step != MIDDLE:
            return f"it resumed at step {again.trainer.progress.step}"
        again.trainer.run()
        ends = [place / f"step-{STEPS:08d}" for place in (folder, self.out / "resumed" / "checkpoints")]
        for file in ("weights", "optimiser", "method"):
            straight, resumed = (load_file(end / f"{file}.safetensors") for end in ends)
            if straight.keys() != resumed.keys():
                return f"{file}: other tensors, {min(straight.keys() ^ resumed.keys())} among them"
            differ = [name for name, tensor in straight.items() if not _same(tensor, resumed[name])]
            if differ:
                return f"{file}: {len(differ)} of {len(straight)} tensors differ, {differ[0]} among them"
        losses = [[step["loss"] for step in run.events.of("step")][-(STEPS - MIDDLE) :] for run in (self.run, again)]
        return "" if losses[0] == losses[1] else f"losses {losses[0]} and {losses[1]}"

    def exports(self) -> str:
        """The run leaves its artifacts, and the trained model as it was."""
        self.run.export()
        self.kind = "adapter" if self.method.capabilities.adapter else "model"
        self.artifacts = {data["name"].removeprefix("matrix-").removesuffix(".zip"): data for data in self.run.events.of("artifact")}
        refused = [data["message"] for data in self.run.events.of("warning") if data["code"] == "merge_refused"]
        wanted = {self.kind}
        if self.method.capabilities.merges:
            wanted |= {"merged"} if self.cell.bits == 16 else {"merged-original", "merged-dequantised"}
        self.download = self.out / "download"
        unzip(self.run, self.artifacts[self.kind], self.download)
        if self.artifacts.keys() != wanted:
            return f"artifacts {sorted(self.artifacts)} in place of {sorted(wanted)}; {' '.join(refused)}"
        return _apart(self.tuned, _logits(self.run.model, self.inputs), "the trained model after its export")

    def reloads(self) -> str:
        """The download, opened as Graft opens it, gives the trained model's logits."""
        opened = self._opened(self.base, self.download, self.cell.bits) if self.kind == "adapter" else self._opened(self.download)
        return _apart(self.tuned, _logits(opened, self.inputs), "the download, opened again")

    def _opened(self, folder: Path, adapter: Path | None = None, bits: int = 16) -> Any:
        """A model, perhaps with an adapter upon it, as Graft opens it."""
        if self.run.head.stands_alone and self.run.head.auto == CAUSAL.auto:
            return open_model(folder, adapter, bits=bits, precision="float32").model
        model = load_model(folder, precision="float32", trains_base=False, bits=bits, head=self.run.head)
        if adapter:
            know_tuners()
            model = PeftModel.from_pretrained(model, adapter)
        return model

    def loads_outside(self) -> str:
        """The download gives the same logits in a process without Graft; where the method is not PEFT's, in a fresh one with Graft."""
        reader = self.place.fresh if self.method.tuner else self.place.stranger
        found = reader.logits(
            self.download, self.base, self.inputs, head=self.run.head, bits=self.cell.bits, adapter=self.kind == "adapter"
        )
        return _apart(self.tuned, found, "the download, outside")

    def merges(self) -> str:
        """The merged model gives the logits of the unmerged one; an adapter that cannot be merged is refused."""
        capabilities = self.method.capabilities
        if not capabilities.adapter:
            return ""
        if not capabilities.merges:
            return self._merge_is_refused()
        if self.cell.bits == 16:
            return self._merged_is_off("merged", ROUNDING_OF_MERGE)
        # The original base is another model than the quantised one: there the adapter is compared upon that base.
        adapter = self.out / "adapter-for-original"
        self.run.trainer.hooks.save_for_original(adapter)
        upon_original = self._opened(self.base, adapter)
        unzip(self.run, self.artifacts["merged-original"], self.out / "merged-original")
        merged = self._opened(self.out / "merged-original")
        wanted, found = (_logits(model, self.inputs) for model in (upon_original, merged))
        return _apart(wanted, found, "the model merged into the original base", ROUNDING_OF_MERGE) or self._merged_is_off(
            "merged-dequantised", CODES_OF_INPUTS if self.cell.bits == 8 else ROUNDING_OF_MERGE
        )

    def _merged_is_off(self, name: str, tolerance: float) -> str:
        """How far the logits of a merged model were from those of the trained one when it was exported; empty where not too far."""
        limit = tolerance * max(float(row.abs().max()) for row in self.tuned)
        apart = self.artifacts[name]["details"]["merge_max_difference"]
        return "" if apart <= limit else f"logits of {name} are off by {apart:.2g} (at most {limit:.2g})"

    def _merge_is_refused(self) -> str:
        try:
            merge(self.base, self.download, self.out / "merged", shard_bytes=10**9)
        except (ValueError, GraftError):
            return "files were left behind" if (self.out / "merged").exists() else ""
        return "its capabilities say that it does not merge, yet jobs.export merged it"


def _logits(model: Any, inputs: Sequence[Inputs]) -> list[torch.Tensor]:
    """All outputs of the model that are logits, of each batch of inputs."""
    was_training = model.training
    model.eval()
    try:
        with plain_inference(model), torch.no_grad():
            found = [model(**each) for each in inputs]
    finally:
        model.train(was_training)
    return [output[name].float() for output in found for name in output if name.endswith("logits")]


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal bit for bit, kind and shape too."""
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one.detach(), other.detach())


def _apart(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor], what: str, tolerance: float = ROUNDING) -> str:
    """Empty where two sets of logits are equal but for rounding."""
    size = max(float(row.abs().max()) for row in wanted)
    if [row.shape for row in wanted] != [row.shape for row in found]:
        return f"{what} gives logits of other shapes"
    gap = max(float((one - other).abs().max()) for one, other in zip(wanted, found, strict=True))
    return "" if gap <= tolerance * size else f"{what} is off by {gap:.2g} in logits of size {size:.2g}"
