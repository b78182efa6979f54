"""Runs by dataset, model, method or experiment: how many there are of each, the best figures, and the first few of each. Two queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.core.paginator import Page, Paginator
from django.db.models import Count, F, Max, Min, Q, QuerySet, Window
from django.db.models.expressions import OrderBy
from django.db.models.functions import RowNumber
from django.utils.translation import gettext_lazy as _

from webapp.runs.models import Run

GROUPS_ON_A_PAGE = 10
RUNS_OF_A_GROUP = 6
NONE_KEY = "none"


@dataclass(frozen=True)
class Grouping:
    """What runs are grouped by: its name, the run's column with the key, the path to the group's name, and the words for those without."""

    label: Any
    key: str
    name: str
    without: Any = ""

    def name_of(self, run: Run) -> str:
        """The name of the group that a run is of."""
        value: Any = run
        for part in self.name.split("__"):
            value = getattr(value, part, None)
        return str(self.without if value is None else value)

    def only(self, key: str) -> Q:
        """The condition that a run is of the group with this key; of none where the key is no key."""
        if key == NONE_KEY and self.without:
            return Q(**{f"{self.key}__isnull": True})
        if self.key == "method":
            return Q(method=key)
        try:
            return Q(**{self.key: UUID(key)})
        except ValueError:
            return Q(pk=None)


GROUPINGS: dict[str, Grouping] = {
    "dataset": Grouping(_("Dataset"), "dataset_version__dataset_id", "dataset_version__dataset__name"),
    "model": Grouping(_("Model"), "base_model_id", "base_model__name"),
    "method": Grouping(_("Method"), "method", "method"),
    "experiment": Grouping(_("Experiment"), "experiment_id", "experiment__name", _("without an experiment")),
}


@dataclass
class Group:
    """One group: its key and name, how many runs, their best figures (None where nothing was measured), and those that are shown."""

    key: str
    name: str
    count: int
    best_eval_loss: float | None
    best_accuracy: float | None
    closed: bool
    toggle_url: str = ""
    all_url: str = ""
    rows: list[Any] = field(default_factory=list)

    @property
    def more(self) -> int:
        """How many runs of an open group are not shown."""
        return 0 if self.closed else self.count - len(self.rows)


def groups_of(runs: QuerySet[Run], grouping: Grouping, page: int, closed: Collection[str]) -> tuple[list[Group], Page[Any]]:
    """The groups of a page, that with the newest run first, without their rows; and the page."""
    rows = (
        runs.order_by()
        .values(group_key=F(grouping.key), group_name=F(grouping.name))
        .annotate(count=Count("pk"), best_eval_loss=Min("eval_loss"), best_accuracy=Max("accuracy"), newest=Max("created_at"))
        .order_by("-newest", "group_name")
    )
    paged = Paginator(list(rows), GROUPS_ON_A_PAGE).get_page(page)
    groups = []
    for row in paged:
        key = NONE_KEY if row["group_key"] is None else str(row["group_key"])
        name = str(grouping.without) if row["group_key"] is None else row["group_name"]
        groups.append(Group(key, name, row["count"], row["best_eval_loss"], row["best_accuracy"], key in closed))
    return groups, paged


def first_of_each(runs: QuerySet[Run], grouping: Grouping, keys: Sequence[str], order: list[OrderBy]) -> list[tuple[str, UUID]]:
    """Group and id of the first runs, in this order, of each of the groups."""
    if not keys:
        return []
    place = Window(RowNumber(), partition_by=F(grouping.key), order_by=order)
    wanted = Q(*(grouping.only(key) for key in keys), _connector=Q.OR)
    found = runs.filter(wanted).order_by().annotate(in_group=place).filter(in_group__lte=RUNS_OF_A_GROUP).order_by("in_group")
    return [(NONE_KEY if key is None else str(key), pk) for key, pk in found.values_list(grouping.key, "pk")]
