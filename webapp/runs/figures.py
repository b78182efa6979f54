"""The figures of an evaluation as a page shows them: which ones, what they are called, and how they are written.

An `eval` event says by itself what was measured: the figures of writing stand in it, those of other tasks under `metrics`, by the ids of
the catalogue of tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from jobs.tasks.registry import ENTRIES
from webapp.core import formats

SHARES = ("token_accuracy", "exact_match", "label_accuracy", "choice_accuracy", "choice_accuracy_normalised")
MEASURES = {
    "loss": _("Loss"),
    "perplexity": _("Perplexity"),
    "token_accuracy": _("Token accuracy"),
    "exact_match": _("Exact match"),
    "label_accuracy": _("Label accuracy"),
    "choice_accuracy": _("Choice accuracy"),
    "choice_accuracy_normalised": _("Choice accuracy, per character"),
}
# Those of tasks other than writing, the one to judge by first.
METRICS = {metric.id: metric for entry in ENTRIES if entry.id != "causal_lm" for metric in entry.metrics if metric.id != "loss"}
# What says the same as a metric under another name.
_SAME = {
    "accuracy": {"label_accuracy", "choice_accuracy", "exact_match"},
    "exact_match": {"exact_match"},
    "mean_squared_error": {"loss"},
}
Data = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One figure: its id, whether it stands under `metrics`, its name, a sentence about it (perhaps none), and whether it is a share."""

    id: str
    metric: bool
    name: Any
    help: str
    share: bool

    def value(self, data: Data | None) -> float | None:
        """What an event says; None where it was not measured."""
        found = data or {}
        return formats.number_of((found.get("metrics") or {}).get(self.id) if self.metric else found.get(self.id))

    def words(self, value: float | None, digits: int = 1) -> str:
        """A value as it is written: a share in per cent with so many digits."""
        return formats.format_percent(value, digits) if self.share else formats.format_number(value, 3)


def columns_of(measured: Collection[Data]) -> list[Column]:
    """The figures that some of the events have, those of the task first."""
    metrics = [Column(each.id, True, each.name, each.help, each.share) for each in METRICS.values()]
    present = [column for column in metrics if any(column.value(data) is not None for data in measured)]
    said = set().union(*(_SAME.get(column.id, set()) for column in present))
    plain = [Column(name, False, words, "", name in SHARES) for name, words in MEASURES.items() if name not in said]
    return present + [column for column in plain if any(column.value(data) is not None for data in measured)]


@dataclass(frozen=True)
class Headline:
    """The figure that is shown where there is room for one, of base and tuned model as words. `of_task`: it is that of a task other than
    writing; `chance`: the base's is that of a head which nobody has trained.
    """

    name: Any
    base: str
    tuned: str
    of_task: bool
    chance: bool


def headline_column(measured: Collection[Data]) -> Column | None:
    """Which of the measured figures is shown where there is room for one: the task's first; of writing the accuracy of choices, else of
    labels, else exact match. None where nothing of them was measured.
    """
    columns = {column.id: column for column in columns_of(measured)}
    wanted = (*(name for name in METRICS if name in columns and columns[name].metric), "choice_accuracy", "label_accuracy", "exact_match")
    return next((columns[name] for name in wanted if name in columns), None)


def headline(summary: Data) -> Headline | None:
    """The headline of a run's summary (`headline_column`); None where nothing was measured."""
    measured = (summary.get("evals") or {}).get("test") or {}
    base, tuned = measured.get("base"), measured.get("tuned")
    found = headline_column([data for data in (base, tuned) if data])
    if found is None:
        return None
    name = found.name if found.metric else _("Accuracy")
    return Headline(name, found.words(found.value(base), 0), found.words(found.value(tuned), 0), found.metric, by_chance(summary))


def by_chance(summary: Data) -> bool:
    """Whether the base was measured under a head that began from nothing."""
    return bool((summary.get("plan") or {}).get("fresh_modules"))
