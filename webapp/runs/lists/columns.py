"""The columns of the list, and by what each is sorted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import F
from django.db.models.expressions import OrderBy
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True)
class Column:
    """One column: its key in URLs and templates, its head, the columns of the database that it is sorted by (none: it is not), whether its
    first sorting is downwards, whether it holds numbers, and whether it is shown unless another choice was made.
    """

    key: str
    label: Any
    paths: tuple[str, ...] = ()
    downwards: bool = False
    number: bool = False
    default: bool = False


# The run's name is always there, and first.
NAME = Column("name", _("Run"), ("name",))
CHOICE: tuple[Column, ...] = (
    Column("status", _("State"), ("state",), default=True),
    Column("method", _("Method"), ("method",), default=True),
    Column("model", _("Model"), ("base_model__name",)),
    Column("data", _("Data"), ("dataset_version__dataset__name", "dataset_version__number")),
    Column("experiment", _("Experiment"), ("experiment__name",)),
    Column("curve", _("Train loss"), ("train_loss",), default=True),
    Column("loss", _("Last loss"), ("train_loss",), number=True),
    Column("eval", _("Eval loss"), ("eval_loss",), number=True, default=True),
    Column("accuracy", _("Accuracy"), ("accuracy",), downwards=True, number=True, default=True),
    Column("memory", _("Peak memory"), ("peak_memory_bytes",), number=True, default=True),
    Column("time", _("Time"), ("duration",), downwards=True, number=True, default=True),
    Column("step", _("Step"), ("last_step",), downwards=True, number=True),
    Column("created", _("Launched"), ("created_at",), downwards=True),
    Column("owner", _("Owner"), ("created_by__username",), default=True),
)
BY_KEY: dict[str, Column] = {column.key: column for column in (NAME, *CHOICE)}
DEFAULT_KEYS: tuple[str, ...] = tuple(column.key for column in CHOICE if column.default)
DEFAULT_SORT = "-created"


def ordering(sort: str) -> list[OrderBy]:
    """The order that `sort` (a key, with `-` downwards) asks for. What was not measured comes last either way; the id makes it total."""
    downwards, column = sort.startswith("-"), BY_KEY[sort.removeprefix("-")]
    return [_order(path, downwards) for path in column.paths] + [_order("id", downwards)]


def _order(path: str, downwards: bool) -> OrderBy:
    # Nothing needs to be said of columns that are never empty, and saying it would keep a database from its index.
    nulls = True if path in _NULLABLE else None
    return OrderBy(F(path), descending=downwards, nulls_last=nulls)


_NULLABLE = frozenset({"train_loss", "eval_loss", "accuracy", "peak_memory_bytes", "duration", "experiment__name"})
