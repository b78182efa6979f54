"""The blocks of a block-sparse run for its page: scores by layer and module over time, and what two runs have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.methods.block_sparse.overlap import EVENT, of_event, overlap
from webapp.runs.kinds import Kind
from webapp.runs.layers import by_layer, last_told, told
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


def scores(run: Run) -> list[dict[str, Any]]:
    """The `block_scores` events of a run, in order of their steps; a step that was trained again counts as it was last."""
    by_step = {data["step"]: data for data in told(run, EVENT).order_by("attempt", "seq").values_list("data", flat=True)}
    return [by_step[step] for step in sorted(by_step)]


def heat_map(run: Run) -> dict[str, Any]:
    """The context of the heat map: the steps there are, and the table of the last of them; nothing for another method's run."""
    last = last_told(run, EVENT)
    if last is None:
        return {"block_steps": []}
    modules = last["modules"]
    low, high = (choose(each["mean"] for each in modules) for choose in (min, max))
    cells = [Cell(each["mean"], each["replaced"], _shade(each["mean"], low, high)) for each in modules]
    columns, rows = by_layer([(each["layer"], each["module"]) for each in modules], cells)
    return {
        "block_steps": sorted(set(told(run, EVENT).values_list("step", flat=True))),
        "block_columns": columns,
        "block_rows": rows,
        "block_others": list(_others(run)),
    }


def compare(run: Run, other: Run) -> dict[str, Any]:
    """What the last selections of two runs have in common: all in all, and by layer and module. Raises `ValueError` in words."""
    first, second = last_told(run, EVENT), last_told(other, EVENT)
    if first is None or second is None:
        raise ValueError("one of the two runs has no block scores yet")
    found = overlap(of_event(first), of_event(second))
    columns, rows = by_layer([(each.layer, each.module) for each in found.modules], found.modules)
    return {"other": other, "overlap": found, "columns": columns, "rows": rows}


def _shade(mean: float, low: float, high: float) -> int:
    return min(SHADES - 1, int(SHADES * (mean - low) / ((high - low) or 1.0)))


def _others(run: Run) -> Any:
    """The team's other runs of the same method on the same base: id and name."""
    others = Run.objects.filter(team=run.team, kind=Kind.TRAIN, base_model=run.base_model, method=run.method).exclude(pk=run.pk)
    return others.order_by("-created_at").values("id", "name")
