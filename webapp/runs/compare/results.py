"""The table of results of some runs, as a paper has it, and the same for machines, with everything in plain units."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.translation import gettext as _

from jobs.errors import UserError
from jobs.methods.registry import get_method
from webapp.core import formats
from webapp.runs.compare.quantities import BEST, PARAMETERS, Quantity, best_step, interval_of, measured, quantities_of
from webapp.runs.compare.statistics import Interval
from webapp.runs.compare.tables import Cell, Head, Table, marked
from webapp.runs.models import Run


def method_name(run: Run) -> str:
    """The method in words; its id where the catalogue has it no more."""
    try:
        return get_method(run.method).name
    except UserError:
        return run.method


def learning_rate(run: Run) -> float | None:
    """The rate that the run trains at: its own, else its method's default."""
    given = (run.spec.get("training") or {}).get("learning_rate")
    if given is not None:
        return float(given)
    try:
        return get_method(run.method).learning_rate
    except UserError:
        return None


def words_of(interval: Interval) -> str:
    """An interval of a share, in per cent: `69.1–81.7`."""
    return f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def paper(runs: Sequence[Run], baseline: Run | None, *, every_figure: bool = False) -> Table:
    """Method by method what it cost and what it gave; beside each figure how it stands to that of `baseline`. Best figures are marked."""
    quantities = quantities_of(runs, every_figure=every_figure)
    heads = [
        Head("run", _("Run"), numeric=False),
        Head("method", _("Method"), numeric=False),
        *(Head(each.id, str(each.label), help=str(each.figure.help) if each.figure else "") for each in quantities),
    ]
    rows = [
        [Cell(run.name, run.name), Cell(run.method, method_name(run)), *(_cell(run, each, baseline) for each in quantities)] for run in runs
    ]
    for index, each in enumerate(quantities, 2):
        if each.lower_is_better is not None:
            rows = marked(rows, index, lower_is_better=each.lower_is_better)
    return Table(heads, rows)


def _cell(run: Run, quantity: Quantity, baseline: Run | None) -> Cell:
    value = quantity.value(run)
    notes = [*_about(run, quantity, value)]
    if baseline is not None and baseline.pk != run.pk:
        notes.append(quantity.difference(value, quantity.value(baseline)))
    return Cell(value, quantity.words(value), tuple(filter(None, notes)))


def _about(run: Run, quantity: Quantity, value: float | None) -> list[str]:
    if value is None:
        return []
    if quantity.figure and (found := interval_of(run, quantity.figure)):
        return [words_of(found[0])]
    if quantity is BEST and (step := best_step(run)) is not None:
        return [f"@ {formats.format_number(step)}"]
    total = (run.summary.get("plan") or {}).get("total_parameters")
    if quantity is PARAMETERS and total:
        return [formats.format_percent(value / total, 2)]
    return []


def machine(runs: Sequence[Run]) -> Table:
    """One row a run: what it was, and all its figures with their intervals, in bytes, seconds and shares."""
    quantities = quantities_of(runs, every_figure=True)
    heads = [
        Head(name, name) for name in ("run_id", "run", "state", "method", "base_model", "data_version", "seed", "learning_rate", "device")
    ]
    for each in quantities:
        heads.append(Head(each.id, each.id))
        heads += [Head(f"{each.id}{end}", each.id) for end in _ends(each)]
    return Table(heads, [_machine_row(run, quantities) for run in runs])


def _ends(quantity: Quantity) -> tuple[str, ...]:
    """What stands beside a quantity in columns of their own."""
    if quantity.figure:
        return ("_base", "_low", "_high", "_rows")
    return ("_step",) if quantity is BEST else ()


def _machine_row(run: Run, quantities: Sequence[Quantity]) -> list[Cell]:
    device = ((run.summary.get("plan") or {}).get("device") or {}).get("name", "")
    said: list[str | int | float | None] = [
        str(run.id), run.name, run.state, run.method, run.base_model.name, str(run.dataset_version), run.spec.get("seed"),
        learning_rate(run), device,
    ]  # fmt: skip
    for each in quantities:
        said.append(each.value(run))
        if each.figure:
            found = interval_of(run, each.figure)
            said.append(each.figure.value(measured(run, "base")))
            said += [found[0].low, found[0].high, found[1]] if found else [None, None, None]
        elif each is BEST:
            said.append(best_step(run))
    return [Cell(value, "") for value in said]
