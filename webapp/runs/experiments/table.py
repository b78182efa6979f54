"""The table in which an experiment ends: a row for each method with its settings, mean and spread over seeds, against full fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from webapp.core import formats
from webapp.runs.compare.configuration import settings_of
from webapp.runs.compare.quantities import COUNTS, PARAMETERS, Quantity, figures_of, interval_of, quantities_of
from webapp.runs.compare.results import learning_rate, method_name, words_of
from webapp.runs.compare.statistics import Interval, Spread, spread
from webapp.runs.compare.tables import Cell, Head, Table, marked
from webapp.runs.models import Run
from webapp.runs.services.experiment import identity_of
from webapp.runs.states import State

FULL = "full"


@dataclass(frozen=True)
class Group:
    """The runs of an experiment that differ in nothing but the seed, in the order of their seeds; `place` counts from 1."""

    place: int
    method: str
    label: str
    runs: Sequence[Run]

    @property
    def first(self) -> Run:
        """The one of the lowest seed."""
        return self.runs[0]

    @property
    def done(self) -> list[Run]:
        """Those that have ended well: figures are of these alone."""
        return [run for run in self.runs if run.state == State.SUCCEEDED]

    def spread(self, quantity: Quantity) -> Spread | None:
        """Mean and spread of a figure over the seeds; None where no run has it."""
        values = [value for run in self.done if (value := quantity.value(run)) is not None]
        return spread(values) if values else None


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """The groups, in the order of their first runs."""
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(identity_of(run)[:3], []).append(run)
    kept = [sorted(each, key=lambda run: (run.spec["seed"], run.created_at)) for each in found.values()]
    firsts = [each[0] for each in kept]
    return [Group(place, method_name(each[0]), _label(each[0], firsts), each) for place, each in enumerate(kept, 1)]


def _label(run: Run, firsts: Sequence[Run]) -> str:
    """The method, with what was set and what differs among the groups of this method."""
    alike = [each for each in firsts if each.method == run.method]
    given: dict[str, Any] = run.spec["method"]["settings"]
    told = settings_of(run)
    for name, value in given.items():
        if len({str(each.spec["method"]["settings"].get(name)) for each in alike}) > 1:
            told.setdefault(name, value)
    words = [method_name(run), *(f"{name} {_value(value)}" for name, value in told.items() if value != "")]
    if len({learning_rate(each) for each in alike}) > 1:
        words.append(f"{_('rate')} {formats.format_rate(learning_rate(run))}")
    return " · ".join(words)


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def thesis_table(groups: Sequence[Group]) -> Table:
    """Time, peak memory, accuracy and trained parameters of each group, mean ± standard deviation over its seeds; figures of a group of
    one run have the interval of the evaluation. Where there is a group of full fine-tuning, others are set against it.
    """
    quantities = quantities_of([run for group in groups for run in group.done])
    base = next((group for group in groups if group.first.method == FULL and group.done), None)
    heads = [
        Head("method", _("Method"), numeric=False),
        Head("learning_rate", _("Rate")),
        Head("runs", _("Seeds")),
        *(Head(each.id, str(each.label), help=str(each.figure.help) if each.figure else "") for each in quantities),
    ]
    rows = [[*_start(group), *(_cell(group, each, base) for each in quantities)] for group in groups]
    for index, each in enumerate(quantities, 3):
        if each.lower_is_better is not None:
            rows = marked(rows, index, lower_is_better=each.lower_is_better)
    return Table(heads, rows)


def _start(group: Group) -> list[Cell]:
    rate, done = learning_rate(group.first), len(group.done)
    of = _("%(done)s of %(all)s") % {"done": done, "all": len(group.runs)}
    return [Cell(group.label, group.label), Cell(rate, formats.format_rate(rate)), Cell(done, of)]


def _cell(group: Group, quantity: Quantity, base: Group | None) -> Cell:
    found = group.spread(quantity)
    if found is None:
        return Cell(None, formats.NONE)
    notes = [_about(group, quantity, found)]
    if base is not None and base is not group and (against := base.spread(quantity)):
        notes.append(quantity.difference(found.mean, against.mean))
    return Cell(found.mean, with_spread(quantity, found), tuple(filter(None, notes)))


def with_spread(quantity: Quantity, found: Spread) -> str:
    """`76.1 % ± 0.4 %`; the mean alone where it is that of one run, or of runs that cannot differ."""
    if found.deviation is None or (quantity is PARAMETERS and not found.deviation):
        return quantity.words(found.mean)
    return f"{quantity.words(found.mean)} ± {quantity.words(found.deviation)}"


def _about(group: Group, quantity: Quantity, found: Spread) -> str:
    """The interval: of one run that of its evaluation, of several that of the mean over seeds."""
    if quantity.figure is None:
        return ""
    if found.interval is not None:
        interval = found.interval
        if quantity.id in COUNTS:  # Student's t knows no bounds; a share of rows has them
            interval = Interval(max(0.0, interval.low), min(1.0, interval.high))
        return words_of(interval) if quantity.share else f"{quantity.words(interval.low)}–{quantity.words(interval.high)}"
    asked = interval_of(group.done[0], quantity.figure)
    return words_of(asked[0]) if asked else ""


def headline_of(groups: Sequence[Group]) -> Quantity | None:
    """The figure that the chart shows: the first that some run has measured."""
    found = figures_of([run for group in groups for run in group.done])
    return found[0] if found else None


def machine_table(groups: Sequence[Group]) -> Table:
    """One row a group, in plain units: mean, standard deviation and count of each figure."""
    quantities = quantities_of([run for group in groups for run in group.done], every_figure=True)
    ends = ("", "_deviation", "_low", "_high", "_runs")
    heads = [Head(name, name) for name in ("method", "label", "learning_rate", "runs", "runs_succeeded")]
    heads += [Head(f"{each.id}{end}", each.id) for each in quantities for end in ends]
    rows = []
    for group in groups:
        row: list[str | int | float | None] = [
            group.first.method, group.label, learning_rate(group.first), len(group.runs), len(group.done)
        ]  # fmt: skip
        for each in quantities:
            found = group.spread(each)
            interval = found.interval if found else None
            row += [
                found.mean if found else None, found.deviation if found else None, interval.low if interval else None,
                interval.high if interval else None, found.count if found else 0,
            ]  # fmt: skip
        rows.append([Cell(value, "") for value in row])
    return Table(heads, rows)
