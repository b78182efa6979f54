"""The blocks of a block-sparse run for its page: scores by layer and module over time, and what two runs have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.methods.block_sparse.overlap import EVENT, Shared, of_event, overlap
from webapp.runs.models import Run

SHADES = 8


@dataclass(frozen=True)
class Cell:
    """One adapted module at one time: the mean score of its selected blocks, the share of its slots that hold another block than at the
    start, and the shade (0 to `SHADES` - 1) of the mean among all modules.
    """

    mean: float
    replaced: float
    shade: int


@dataclass(frozen=True)
class Row:
    """One layer ("" for modules outside the layers): a cell for each module, None where it is not adapted."""

    layer: str
    cells: list[Cell | None]


def scores(run: Run) -> list[dict[str, Any]]:
    """The `block_scores` events of a run, in order of their steps; a step that was trained again counts as it was last."""
    events = run.records.filter(kind="method").order_by("attempt", "seq").values_list("data", flat=True)
    by_step = {data["step"]: data for data in events if data.get("name") == EVENT}
    return [by_step[step] for step in sorted(by_step)]


def heat_map(run: Run) -> dict[str, Any]:
    """The context of the heat map: the steps there are, and the table of the last of them; nothing for another method's run."""
    events = scores(run)
    if not events:
        return {"block_steps": []}
    modules = events[-1]["modules"]
    columns = list(dict.fromkeys(each["module"] for each in modules))
    return {
        "block_steps": [event["step"] for event in events],
        "block_columns": columns,
        "block_rows": _rows(modules, columns),
        "block_others": list(_others(run)),
    }


def _rows(modules: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[Row]:
    means = [each["mean"] for each in modules]
    low, width = min(means), (max(means) - min(means)) or 1.0
    rows: dict[Any, list[Cell | None]] = {}
    for each in modules:
        shade = min(SHADES - 1, int(SHADES * (each["mean"] - low) / width))
        cells = rows.setdefault(each["layer"], [None] * len(columns))
        cells[columns.index(each["module"])] = Cell(each["mean"], each["replaced"], shade)
    ordered = sorted(rows, key=lambda layer: (layer is None, layer or 0))
    return [Row("" if layer is None else str(layer), rows[layer]) for layer in ordered]


def _others(run: Run) -> Any:
    """The team's other runs of the same method on the same base."""
    return Run.objects.filter(team=run.team, base_model=run.base_model, method=run.method).exclude(pk=run.pk).order_by("-created_at")


def compare(run: Run, other: Run) -> dict[str, Any]:
    """What the last selections of two runs have in common: all in all, and by layer and module. Raises `ValueError` in words."""
    first, second = scores(run), scores(other)
    if not first or not second:
        raise ValueError("one of the two runs has no block scores yet")
    found = overlap(of_event(first[-1]), of_event(second[-1]))
    columns = list(dict.fromkeys(each.module for each in found.modules))
    return {"other": other, "overlap": found, "columns": columns, "rows": _shared_rows(found.modules, columns)}


def _shared_rows(modules: Sequence[Shared], columns: Sequence[str]) -> list[tuple[str, list[Shared | None]]]:
    rows: dict[Any, list[Shared | None]] = {}
    for each in modules:
        rows.setdefault(each.layer, [None] * len(columns))[columns.index(each.module)] = each
    ordered = sorted(rows, key=lambda layer: (layer is None, layer or 0))
    return [("" if layer is None else str(layer), rows[layer]) for layer in ordered]
