"""What an experiment would launch and take, before it does: runs, trained parameters and, where they are known, memory and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.errors import UserError
from jobs.spec import RunSpec
from webapp.runs.experiments.cells import Cell
from webapp.runs.experiments.form import ExperimentForm
from webapp.runs.services.advise import advise
from webapp.runs.services.experiment import recipe_of
from webapp.runs.trained import trained_by


@dataclass(frozen=True)
class Planned:
    """Runs that differ in rate and seed alone, and what each takes: `trained` parameters, the peak in bytes with whether it fits the
    smallest worker, and `seconds` of training. None is what is not known; `refusal` says why it cannot be launched, empty where it can.
    """

    method: str
    settings: str
    rates: Sequence[float]
    seeds: Sequence[int]
    runs: int
    trained: int | None = None
    peak_bytes: int | None = None
    fits: bool = True
    seconds: float | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Preview:
    """The rows, how many runs they are together, and why nothing is known of memory and time (empty where something is)."""

    rows: Sequence[Planned]
    runs: int
    unknown: str

    @property
    def seconds(self) -> float | None:
        """The training of all runs one after another; None where that of some is not known."""
        times = [None if row.seconds is None else row.seconds * row.runs for row in self.rows]
        return None if None in times else sum(time or 0.0 for time in times)

    @property
    def peak_bytes(self) -> int | None:
        """The most that a run takes; None where nothing is known."""
        return max((row.peak_bytes for row in self.rows if row.peak_bytes is not None), default=None)


def preview_of(form: ExperimentForm) -> Preview:
    """What a valid form would launch. Each method with its settings is looked at once, whatever its rates and seeds."""
    alike: dict[tuple[str, str], list[Cell]] = {}
    for cell in form.cells:
        alike.setdefault(cell.identity()[:2], []).append(cell)
    groups = list(alike.values())
    takes, unknown = _takes(form, [cells[0] for cells in groups])
    return Preview([_planned(form, cells, each) for cells, each in zip(groups, takes, strict=True)], len(form.cells), unknown)


def _takes(form: ExperimentForm, cells: Sequence[Cell]) -> tuple[list[Mapping[str, Any]], str]:
    """For each cell the answer of the estimate, empty where there is none, and why there is none at all."""
    data, spec = form.cleaned_data, form.shared()
    version, base = data["dataset_version"], data["base_model"]
    try:
        specs: list[RunSpec] = [recipe_of("preview", spec, cell, version, base).spec() for cell in cells]
        answer = advise(form.team, specs[0], dataset_version=version, base_model=base, wish="quality", each=specs)
    except UserError as error:
        return [{} for _cell in cells], f"{error.message} {error.remedy}"
    return list(answer["each"]), ""


def _planned(form: ExperimentForm, cells: Sequence[Cell], found: Mapping[str, Any]) -> Planned:
    estimate, refusal = found.get("estimate") or {}, found.get("refusal") or {}
    # The count hangs on no worker, so that it is told where nothing else is.
    counted = trained_by(cells[0].entry, cells[0].settings, form.cleaned_data["base_model"].folder, form.shared()["task"])
    return Planned(
        method=cells[0].entry.name,
        settings=", ".join(
            f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}" for name, value in cells[0].settings.items()
        ),
        rates=list(dict.fromkeys(cell.rate for cell in cells)),
        seeds=list(dict.fromkeys(cell.seed for cell in cells)),
        runs=len(cells),
        trained=None if counted is None or counted.unknown else counted.count,
        peak_bytes=(estimate.get("memory") or {}).get("peak"),
        fits=estimate.get("fits", True),
        seconds=(found.get("timing") or {}).get("seconds"),
        refusal=refusal.get("message", ""),
    )
