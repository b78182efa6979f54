"""A composition from its spec to its artifacts, by the phases of a run: made one, measured beside base and parts, exported."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jobs.adapter_files import CONFIG, WEIGHTS
from jobs.composition import low_rank
from jobs.composition.combinations import unfit
from jobs.composition.parts import Part, read_parts
from jobs.composition.rules import misfit
from jobs.composition.spec import BLOCKS, EVENT, PART, CompositionSpec
from jobs.data.encoding import encode_records
from jobs.data.token_cache import TokenCache, sha256
from jobs.data.tokens import EncodedRows
from jobs.evaluation.probe import load_probe
from jobs.export.context import ExportContext
from jobs.export.export import export_run
from jobs.held_out import HeldOut
from jobs.methods.block_sparse.compose import compose as add_blocks
from jobs.methods.hooks import Hooks
from jobs.models.loading import DTYPES, load_tokenizer
from jobs.models.opened import with_adapter
from jobs.run import PARITY_ROWS, Session, length_limit, load, tokenise
from jobs.spec import DataSpec, TrainingSpec, write_spec
from jobs.tasks.work import Means, Rows
from jobs.training.loop import Progress
from jobs.training.rowsets import EncodedSets
from jobs.training.running import Runner

# In `eval` events the composed adapter is what a run calls tuned.
COMPOSED = "tuned"
# Rows on which the way to run a model is chosen.
TRIED_ROWS = 8


@dataclass(frozen=True)
class _Measured:
    """A model that nothing trains, for `HeldOut`."""

    forward: Runner
    progress: Progress
    epoch: float = 0.0


@dataclass(frozen=True)
class _NoRows:
    """A composition without rows of its own (`jobs.tasks.work.Rows`)."""

    held_out: Sequence[Any] = ()
    held_out_split: str = "validation"

    def encoded(self, spec: TrainingSpec, length_limit: int) -> EncodedSets:
        """None at all."""
        none = EncodedRows([], [], spec.max_length or length_limit, 0, 0, 0, 0)
        return EncodedSets(none, none, none)


class _Composed(Hooks):
    """Leaves the composed files as they are."""

    folder = Path()

    def save(self, folder: Path) -> None:
        """Config and weights."""
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(self.folder / name, folder / name)


@dataclass
class _Bench:
    """Where models are measured: the session, its rows, the rows on which logits are compared, and the figures so far."""

    session: Session
    held_out: HeldOut
    tried: Sequence[Any]
    progress: Progress = field(default_factory=Progress)

    def measure(self, model: Any, name: str) -> _Measured:
        """Measures a model under `name`; returns how it is run."""
        means = Means(DTYPES[self.session.precision], self.session.torch_device)
        measured = _Measured(self.session.work.forward(model, self.tried, means, self.session.spec)[0], self.progress)
        self.held_out.compare(name, measured)
        return measured


def execute(spec: CompositionSpec, out: Path, *, emit: Callable[..., Any], stop: Callable[[], bool], cache: TokenCache) -> None:
    """Carries a composition out into the folder `out`. An interrupted one begins anew: nothing of it is long.

    Emits the events of a run, among them a `method` event named `EVENT` that says what was made of what. Raises `GraftError` (`preempted`
    when `stop()` said so), or whatever else went wrong.
    """
    with _scratch(out) as scratch:
        parts = read_parts(spec, scratch)
        session = Session.open(spec.as_run(str(parts[0].config["peft_type"])), out, emit, stop)
        torch.set_num_threads(session.device["threads"])
        write_spec(spec, out)
        folder = scratch / "composed"
        facts = {**spec.facts(), **_combine(session, spec, parts, folder)}
        emit("method", step=0, name=EVENT, facts=facts)
        bench, model = _bench(session, spec, parts, cache)
        _export(bench, spec, _measure(bench, model, parts, folder), folder, facts)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A new folder within `out`, gone afterwards."""
    folder = out / ".composition"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _combine(session: Session, spec: CompositionSpec, parts: Sequence[Part], folder: Path) -> dict[str, Any]:
    """Writes the composed adapter's config and weights; returns what is to be said of it."""
    report = session.phase("merging", None, "tensors")
    if parts[0].config["peft_type"] != BLOCKS:
        return low_rank.combine(parts, spec, folder, lambda done, _: report(done))
    if reason := misfit(spec.combination, BLOCKS):
        raise unfit(f"{spec.combination} does not fit: {reason}", "Choose cat.")
    try:
        found = add_blocks([(part.folder, part.weight) for part in parts], folder)
    except ValueError as failure:
        raise unfit(failure, "Choose block-sparse adapters of one base and one grid.") from None
    return {"blocks": found.blocks, "conflicts": found.conflicts, "conflict_share": found.share}


def _measure(bench: _Bench, model: Any, parts: Sequence[Part], folder: Path) -> _Measured:
    """Measures the base `model`, each part and the composed adapter in `folder` upon it; returns the last."""
    bench.measure(model, "base")
    for number, part in enumerate(parts, 1):
        upon = with_adapter(model, part.folder)
        bench.measure(upon, PART.format(number=number))
        model = upon.unload()
    return bench.measure(with_adapter(model, folder), COMPOSED)


def _tokenizer(spec: CompositionSpec, parts: Sequence[Part]) -> Any:
    """The first adapter's where it brings one: it was trained behind that chat template."""
    own = parts[0].folder if (parts[0].folder / "tokenizer.json").is_file() else None
    return load_tokenizer(Path(spec.model.path), files=own)


def _bench(session: Session, spec: CompositionSpec, parts: Sequence[Part], cache: TokenCache) -> tuple[_Bench, Any]:
    """What the models are measured by, and the base model."""
    rows: Rows
    rows, tokenizer = tokenise(session, cache) if spec.data else (_NoRows(), _tokenizer(spec, parts))
    model = load(session, tokenizer)
    limit = length_limit(model)
    encoded = rows.encoded(session.spec.training, limit)
    session.emit("plan", **_plan(session, encoded))
    own = encoded.of(rows.held_out_split).rows or encoded.train.rows
    tried = own or encode_records(load_probe()["knowledge"], tokenizer, max_length=limit).rows
    return _Bench(session, HeldOut(session, rows, encoded, tokenizer), tried[:TRIED_ROWS]), model


def _plan(session: Session, encoded: EncodedSets) -> dict[str, Any]:
    """What a composition has of a run's plan: no step, but rows and device."""
    return {
        "total_steps": 0,
        "start_step": 0,
        "validation_rows": len(encoded.validation.rows),
        "test_rows": len(encoded.test.rows),
        "precision": session.precision,
        "device": session.device_facts,
    }


def _export(bench: _Bench, spec: CompositionSpec, measured: _Measured, folder: Path, facts: dict[str, Any]) -> None:
    session, held_out = bench.session, bench.held_out
    hooks = _Composed(measured.forward.model)
    hooks.folder = folder

    def reevaluate(model: Any, name: str) -> dict[str, Any]:
        return held_out.measure(measured.forward.of(model), name, measured) if held_out.held.rows.rows else {}

    results = bench.progress.results
    export_run(
        ExportContext(
            model=measured.forward.model,
            tokenizer=held_out.tokenizer,
            spec=session.spec,
            method=session.method,
            settings=session.settings,
            hooks=hooks,
            base_folder=Path(spec.model.path),
            out=session.out,
            results={name: data for name, data in results.items() if name != "probe"},
            probe=results["probe"],
            precision=session.precision,
            facts={**facts, **_data(spec.data), "precision": session.precision},
            held_out=session.work.compared(bench.tried[:PARITY_ROWS]),
            head=session.work.head(held_out.tokenizer, spec.seed),
            logits=session.work.logits,
            emit=session.emit,
            reevaluate=reevaluate,
            made=f"composed of {len(spec.adapters)} adapters ({', '.join(name for _, name in spec.named())})",
        )
    )


def _data(data: DataSpec | None) -> dict[str, Any]:
    """The file that models were measured on, for the model card."""
    file = data and (data.test or data.validation or data.train)
    return {"data": {Path(file).name: sha256(Path(file))}} if file else {}
