"""What the pages of experiments show: the list, and one experiment with the state of its cells, its table and its chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Count, Max, Q
from django.utils.translation import gettext as _

from webapp.accounts.models import Team
from webapp.core import formats
from webapp.runs.compare.quantities import MEMORY, Quantity
from webapp.runs.compare.tables import to_csv, to_latex, to_markdown
from webapp.runs.experiments.scatter import Point, scatter
from webapp.runs.experiments.table import Group, groups_of, headline_of, machine_table, thesis_table
from webapp.runs.models import Experiment, Run
from webapp.runs.states import ACTIVE, TERMINAL, State

PAGE_SIZE = 50
FORMATS = {"csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex"}
_NAMES = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}
# One colour for each of the first eight groups; all have their number beside them.
COLOURS = 8


@dataclass(frozen=True)
class MatrixRow:
    """One group with its runs, seed by seed: None where it has no run of that seed; several where cells were made again."""

    group: Group
    cells: Sequence[Sequence[Run]]


@dataclass(frozen=True)
class Counts:
    """How many runs there are, by what they do."""

    all: int
    succeeded: int
    failed: int
    cancelled: int
    moving: int

    @property
    def share(self) -> float:
        """Of the runs, the share that has ended."""
        return (self.succeeded + self.failed + self.cancelled) / self.all if self.all else 0.0


def experiments_of(team: Team, number: str | None) -> Page[Any]:
    """A page of the team's experiments, the newest first, each with `total`, `succeeded`, `failed`, `moving` and `ended`: two queries."""
    moving = Q(runs__state__in=[*ACTIVE, State.QUEUED, State.INTERRUPTED])
    rows = team.experiments.select_related("created_by").annotate(
        total=Count("runs"),
        succeeded=Count("runs", filter=Q(runs__state=State.SUCCEEDED)),
        failed=Count("runs", filter=Q(runs__state=State.FAILED)),
        moving=Count("runs", filter=moving),
        ended=Max("runs__finished_at"),
        data=Max("runs__dataset_version__dataset__name"),
        base=Max("runs__base_model__name"),
    )
    return Paginator(rows.order_by("-created_at"), PAGE_SIZE).get_page(number)


def runs_of(experiment: Experiment) -> list[Run]:
    """The experiment's runs in the order in which they were launched, with what a table needs of each: one query."""
    rows = experiment.runs.select_related("base_model", "dataset_version__dataset", "created_by")
    return list(rows.order_by("created_at", "pk"))


def page_of(experiment: Experiment) -> dict[str, Any]:
    """The context of an experiment's page."""
    runs = runs_of(experiment)
    groups = groups_of(runs)
    table = thesis_table(groups)
    return {
        "experiment": experiment,
        "first": runs[0] if runs else None,
        "counts": counts_of(runs),
        "seeds": seeds_of(groups),
        "matrix": matrix_of(groups),
        # Method, rate and seeds stand in one cell.
        "heads": table.heads[3:],
        "results": [(group, row[1], row[2], row[3:]) for group, row in zip(groups, table.rows, strict=True)],
        "exports": [
            {"form": form, "name": name, "text": "" if form == "csv" else _written(experiment, groups, form)}
            for form, name in _NAMES.items()
        ],
        **_charted(groups),
    }


def counts_of(runs: Sequence[Run]) -> Counts:
    """How many of the runs do what; those that are paused are neither ended nor moving."""

    def count(*states: State) -> int:
        return sum(run.state in states for run in runs)

    moving = sum(run.state not in TERMINAL | {State.PAUSED} for run in runs)
    return Counts(len(runs), count(State.SUCCEEDED), count(State.FAILED), count(State.CANCELLED), moving)


def seeds_of(groups: Sequence[Group]) -> list[int]:
    """Every seed of the experiment, in order: the columns of the matrix."""
    return sorted({run.spec["seed"] for group in groups for run in group.runs})


def matrix_of(groups: Sequence[Group]) -> list[MatrixRow]:
    """The runs by group and seed."""
    seeds = seeds_of(groups)
    return [MatrixRow(group, [[run for run in group.runs if run.spec["seed"] == seed] for seed in seeds]) for group in groups]


def _charted(groups: Sequence[Group]) -> dict[str, Any]:
    """The chart of the headline figure over memory, with its axes in words; None where nothing has been measured."""
    figure = headline_of(groups)
    found = [(group, point) for group in groups if figure and (point := _point(group, figure))]
    if figure is None or not found:
        return {"chart": None}
    chart = scatter(
        [point for _group, point in found],
        _size,
        lambda value: formats.format_percent(value, 0) if figure.share else figure.words(value),
        x_least=0.0,
        y_least=0.0 if figure.share and all(point.y >= 0 for _group, point in found) else None,
        y_most=1.0 if figure.share else None,
    )
    return {"chart": chart, "chart_figure": figure.label}


def _size(value: float) -> str:
    """A round size without digits that say nothing: `5 GB`."""
    number, thin, unit = formats.format_bytes(value).partition(formats.THIN)
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number}{thin}{unit}"


def _point(group: Group, figure: Quantity) -> Point | None:
    memory, value = group.spread(MEMORY), group.spread(figure)
    if memory is None or value is None:
        return None
    off = value.deviation
    low, high = (None, None) if off is None else (value.mean - off, value.mean + off)
    return Point(group.place, group.label, memory.mean, value.mean, low, high)


def export(experiment: Experiment, form: str) -> str:
    """The table in one of `FORMATS`."""
    return _written(experiment, groups_of(runs_of(experiment)), form)


def _written(experiment: Experiment, groups: Sequence[Group], form: str) -> str:
    if form == "csv":
        return to_csv(machine_table(groups))
    table = thesis_table(groups)
    return to_markdown(table) if form == "md" else to_latex(table, _caption(experiment, groups), f"experiment {experiment.name}")


def _caption(experiment: Experiment, groups: Sequence[Group]) -> str:
    first = groups[0].first if groups else None
    said = {"name": experiment.name, "data": first.dataset_version if first else "", "base": first.base_model.name if first else ""}
    return _("%(name)s: %(data)s, %(base)s. Mean ± standard deviation over seeds; ranges are 95%% intervals.") % said
