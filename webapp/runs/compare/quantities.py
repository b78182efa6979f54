"""What is measured of a run, each as a number with a name, a unit and a way to be written: the columns of every table of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webapp.core import formats
from webapp.core.formats import THIN, number_of
from webapp.runs.compare.statistics import Interval, counted, relative, wilson
from webapp.runs.figures import METRICS, Column, columns_of, headline_column
from webapp.runs.models import Run

# Figures that are counts of rows, so that an interval can be said of them; F1 and correlations are none.
COUNTS = frozenset({"accuracy", "exact_match", "label_accuracy", "choice_accuracy", "choice_accuracy_normalised"})
# Beside the headline these say little in a table of results, or are there already.
_LOSSES = frozenset({"loss", "perplexity"})


@dataclass(frozen=True)
class Quantity:
    """One figure of a run. `id` carries the unit and names the column in a CSV file; `value` is None where it is not known (yet).

    `lower_is_better` is None where neither is. `proportional` figures are compared by their ratio, others by their difference.
    `figure` is the column of the evaluation behind it, None where it is no figure of the evaluation.
    """

    id: str
    label: Any
    value: Callable[[Run], float | None]
    words: Callable[[float | None], str]
    lower_is_better: bool | None = True
    proportional: bool = True
    share: bool = False
    figure: Column | None = None

    def difference(self, value: float | None, base: float | None) -> str:
        """How `value` stands to `base`, as words with a sign; empty where either is not known."""
        if value is None or base is None:
            return ""
        if self.proportional:
            ratio = relative(value, base)
            return "" if ratio is None else signed(100 * ratio, _digits(ratio), "%")
        if self.share:
            return signed(100 * (value - base), 1, _("points"))
        return signed(value - base, 3, "")


def signed(value: float, digits: int, unit: str) -> str:
    """A number with its sign, a real minus, and its unit: `−76 %`."""
    words = f"{abs(value):.{digits}f}"
    sign = "±" if float(words) == 0 else "+" if value > 0 else "\u2212"
    return f"{sign}{words}{THIN}{unit}" if unit else f"{sign}{words}"


def _digits(ratio: float) -> int:
    """Whole per cents, but for small differences and those close to all, where one digit more tells runs apart."""
    return 1 if abs(ratio) < 0.1 or -1 < ratio < -0.95 else 0


def _plan(name: str) -> Callable[[Run], float | None]:
    return lambda run: number_of((run.summary.get("plan") or {}).get(name))


def _evals(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.summary.get("evals") or {}
    return found


def training_seconds(run: Run) -> float | None:
    """How long the steps took, without loading, evaluation and export."""
    return number_of((run.summary.get("latest") or {}).get("elapsed_seconds"))


def best_step(run: Run) -> int | None:
    """The step of the least validation loss."""
    step = (_evals(run).get("best") or {}).get("step")
    return int(step) if step is not None else None


def measured(run: Run, model: str = "tuned") -> dict[str, Any]:
    """The final evaluation of a model on the held-out rows; empty where there is none."""
    found: dict[str, Any] = (_evals(run).get("test") or {}).get(model) or {}
    return found


def _loss(value: float | None) -> str:
    return formats.format_number(value, 3)


PARAMETERS = Quantity(
    "trainable_parameters", gettext_lazy("Trainable parameters"), _plan("trainable_parameters"), formats.format_number, None
)
SECONDS = Quantity("training_seconds", gettext_lazy("Training time"), training_seconds, formats.format_duration)
MEMORY = Quantity(
    "peak_memory_bytes", gettext_lazy("Peak memory"), lambda run: number_of(run.summary.get("peak_memory_bytes")), formats.format_bytes
)
LAST = Quantity(
    "validation_loss", gettext_lazy("Validation loss, last"),
    lambda run: number_of((_evals(run).get("validation") or {}).get("loss")), _loss, proportional=False,
)  # fmt: skip
BEST = Quantity(
    "best_validation_loss", gettext_lazy("best @ step"),
    lambda run: number_of((_evals(run).get("best") or {}).get("loss")), _loss, proportional=False,
)  # fmt: skip
HELD_OUT = Quantity(
    "held_out_loss", gettext_lazy("Held-out loss"), lambda run: number_of(measured(run).get("loss")), _loss, proportional=False
)
COSTS = (PARAMETERS, SECONDS, MEMORY)


def quantities_of(runs: Sequence[Run], *, every_figure: bool = False) -> list[Quantity]:
    """What the table of these runs shows: costs, the headline figure of each run, or `every_figure`, and those losses that some run has."""
    losses = [each for each in (HELD_OUT, LAST, BEST) if any(each.value(run) is not None for run in runs)]
    return [*COSTS, *figures_of(runs, every=every_figure), *losses]


def figures_of(runs: Sequence[Run], *, every: bool = False) -> list[Quantity]:
    """The figures of the final evaluation as quantities: the headline of each run, or `every` one but the losses."""
    datas = [data for run in runs if (data := measured(run))]
    if every:
        return [_figure(column) for column in columns_of(datas) if column.id not in _LOSSES]
    heads = {(column.id, column.metric) for data in datas if (column := headline_column([data]))}
    return [_figure(column) for column in columns_of(datas) if (column.id, column.metric) in heads]


def _figure(column: Column) -> Quantity:
    lower = METRICS[column.id].lower_is_better if column.metric else False
    return Quantity(
        column.id, column.name, lambda run: column.value(measured(run)), column.words, lower, proportional=False, share=column.share,
        figure=column,
    )  # fmt: skip


def interval_of(run: Run, column: Column, model: str = "tuned") -> tuple[Interval, int] | None:
    """The 95 % interval (Wilson) of a figure that is a count of rows, and how many rows; None for any other.

    An event does not say how many rows were asked. Of writing it is at most what the spec allows, of other tasks every row; where the
    figure is no count of so many (rows without an answer are not asked), no interval is made up.
    """
    data = measured(run, model)
    share, rows = column.value(data), int(data.get("rows") or 0)
    if column.id not in COUNTS or share is None:
        return None
    if not column.metric:
        rows = min(rows, int((run.spec.get("evaluation") or {}).get("rows") or rows))
    return (wilson(share, rows), rows) if counted(share, rows) else None
