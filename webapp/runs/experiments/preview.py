"""What an experiment would launch, before it does: its runs by method and settings, and how many parameters each trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from webapp.catalog.models import BaseModel
from webapp.runs.experiments.cells import Cell
from webapp.runs.experiments.form import ExperimentForm
from webapp.runs.trained import Trained, trained_by


@dataclass(frozen=True)
class Planned:
    """Runs that differ in rate and seed alone; `trained` is None where the base cannot be looked at."""

    method: str
    settings: str
    rates: Sequence[float]
    seeds: Sequence[int]
    runs: int
    trained: Trained | None


@dataclass(frozen=True)
class Preview:
    """The rows, and how many runs they are together."""

    rows: Sequence[Planned]
    runs: int


def preview_of(form: ExperimentForm) -> Preview:
    """What a valid form would launch."""
    by_settings: dict[tuple[str, str], list[Cell]] = {}
    for cell in form.cells:
        by_settings.setdefault(cell.identity()[:2], []).append(cell)
    data = form.shared()
    base: BaseModel = form.cleaned_data["base_model"]
    rows = [
        Planned(
            method=cells[0].entry.name,
            settings=", ".join(
                f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}" for name, value in cells[0].settings.items()
            ),
            rates=list(dict.fromkeys(cell.rate for cell in cells)),
            seeds=list(dict.fromkeys(cell.seed for cell in cells)),
            runs=len(cells),
            trained=trained_by(cells[0].entry, cells[0].settings, base.folder, data["task"]),
        )
        for cells in by_settings.values()
    ]
    return Preview(rows, len(form.cells))
