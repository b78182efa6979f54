"""What a run would take, told while its form is filled in: memory by part, time, steps, tokens, trained parameters, disk, rows cut.

It is the estimate of `jobs.planning`, made in this process from what is known already: the headers of the base's files, the lengths that
the data check found, the calibration and the team's own finished runs. No row is read, so that an answer takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from jobs.device import Device
from jobs.planning.advice import Reduction
from jobs.planning.batches import RowLengths
from jobs.planning.calibration import read_calibration
from jobs.planning.estimate import USABLE_SHARE, Estimate
from jobs.planning.outcomes import Outcome, Timing
from jobs.planning.recommend import Situation
from jobs.planning.shape import ModelShape, shape_of
from jobs.spec import RunSpec
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.catalog.services.tensors import tensors_of
from webapp.checks.models import Survey
from webapp.datasets.models import DatasetVersion
from webapp.runs.models import Run
from webapp.runs.order import turns
from webapp.runs.services.advise import least_device
from webapp.runs.services.past import past_runs
from webapp.runs.services.specs import for_worker
from webapp.work.outbox import TRAIN_QUEUE

SHAPES_KEPT = 32
# Lengths that stand for all rows of a version.
SAMPLES = 400
# As `jobs.planning.lengths` takes it where rows are known by their characters alone.
CHARACTERS_PER_TOKEN = 4.0
# AdamW keeps two moments beside each trained number, all of them float32, and so does a checkpoint.
CHECKPOINT_BYTES = 12
ADAPTER_BYTES = 4


@dataclass(frozen=True)
class Rows:
    """The lengths of the training rows in tokens. `basis` says how they are known: `tokens`, `characters`, or empty (not at all)."""

    lengths: RowLengths
    basis: str


@dataclass(frozen=True)
class Takes:
    """What a run would take. Sizes in bytes; `low` and `high` are the range of the time in seconds where one is known.

    `cut` is the share of rows that are longer than `longest`, None where lengths are not known; `ahead` are waiting runs that go before.
    """

    device: Device
    found: Estimate
    timing: Timing | None
    low: float | None
    high: float | None
    tokens: float
    disk: int
    longest: int
    cut: float | None
    basis: str
    ahead: int
    remedies: tuple[Reduction, ...]

    @property
    def usable_bytes(self) -> float:
        """What a run may take of the device's memory."""
        return USABLE_SHARE * self.device["memory_bytes"]


def takes(team: Team, spec: RunSpec, *, dataset_version: DatasetVersion, base_model: BaseModel) -> Takes:
    """For a run of `team` on the worker that has the least memory. `spec` has names in the place of paths.

    Raises `UserError`: `no_worker`, or what the engine refuses.
    """
    device = least_device()
    run = Run(team=team, dataset_version=dataset_version, base_model=base_model, spec=spec.to_json())
    situation, rows = situation_of(run, device, past_runs(team))
    whole, shape = situation.spec, situation.shape
    found = situation.estimate(whole)
    longest = whole.training.max_length or rows.lengths.natural_length()
    longest = min(longest, shape.context or longest)
    kept = rows.lengths.cut(longest)
    batch = whole.training.micro_batch * whole.training.gradient_accumulation
    speed = found.speed
    tokens = found.steps * min(kept.rows, batch) * kept.mean
    return Takes(
        device=device,
        found=found,
        timing=situation.timing(whole, found),
        low=tokens / speed.high if speed else None,
        high=tokens / speed.low if speed else None,
        tokens=tokens,
        disk=disk_bytes(whole, found, shape),
        longest=longest,
        cut=sum(length > longest for length in rows.lengths.lengths) / len(rows.lengths.lengths) if rows.basis else None,
        basis=rows.basis,
        ahead=sum(turn.hold is None for turn in turns(TRAIN_QUEUE)),
        remedies=() if found.fits else situation.less(whole),
    )


def situation_of(run: Run, device: Device, past: Sequence[Outcome] = ()) -> tuple[Situation, Rows]:
    """What the estimates of a run on a device rest on, `past` what the team's own runs have shown. Raises `UserError`."""
    whole = for_worker(run)
    shape = _shape(Path(whole.model.path))
    rows = rows_of(whole, run.dataset_version, run.base_model, shape)
    calibration = read_calibration(Path(settings.GRAFT_VAR) / "cache", device, shape)
    return Situation(whole, device, shape, rows.lengths, calibration, past=tuple(past), keep_engine=True), rows


def rows_of(spec: RunSpec, version: DatasetVersion, base_model: BaseModel, shape: ModelShape) -> Rows:
    """By the tokens that a survey counted, else by the characters of the validation's report, else a guess."""
    count = version.rows("train")
    trained = max(1, count - (0 if spec.data.validation else round(count * spec.data.validation_share)))
    survey = Survey.objects.filter(version=version, base_model=base_model, loss_on=spec.training.loss_on, state=Survey.State.DONE).first()
    if survey is not None and survey.result.get("lengths"):
        share = survey.result["trained_tokens"] / max(1, survey.result["tokens"])
        return Rows(RowLengths.of(_sampled(survey.result["lengths"]), rows=trained, label_share=share), "tokens")
    characters = version.report.get("characters")
    if characters:
        places = {0.0: "min", 50.0: "median", 95.0: "p95", 100.0: "max"}
        lengths = {place: max(1.0, characters[name] / CHARACTERS_PER_TOKEN) for place, name in places.items()}
        return Rows(RowLengths.from_percentiles(lengths, rows=trained), "characters")
    guess = RowLengths.unknown(spec.training, shape.context)
    return Rows(RowLengths(guess.lengths, trained if count else guess.rows, guess.label_share, known=False), "")


def disk_bytes(spec: RunSpec, found: Estimate, shape: ModelShape) -> int:
    """What a run leaves on the disk at least: its newest checkpoint, its adapter or its weights, and merged models."""
    trained = found.trained_parameters or 0
    written = shape.total_parameters * 4 if spec.export.dtype == "float32" else shape.stored_bytes
    if spec.method.id == "full":
        return CHECKPOINT_BYTES * trained + written
    merged = {"none": 0, "both": 2}.get(spec.export.merge, 1)
    return (CHECKPOINT_BYTES + ADAPTER_BYTES) * trained + merged * written


@lru_cache(SHAPES_KEPT)
def _shape(folder: Path) -> ModelShape:
    """A base model's files never change once it is ready."""
    return shape_of(*tensors_of(folder))


def _sampled(pairs: list[list[int]]) -> list[int]:
    """At most `SAMPLES` lengths, spread evenly over all of [[tokens, rows], ...] in ascending order."""
    total = sum(count for _, count in pairs)
    lengths: list[int] = []
    step, passed, place = max(1.0, total / SAMPLES), 0, 0.5
    for length, count in pairs:
        passed += count
        while place * step <= passed and len(lengths) < min(SAMPLES, total):
            lengths.append(length)
            place += 1
    return lengths or [pairs[-1][0]]
