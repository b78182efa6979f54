"""What the page of a team's runs shows: the runs that match, by group or one after the other, how many there are, and the workers. A
constant number of queries, whatever there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q, QuerySet
from django.http import QueryDict
from django.utils.safestring import SafeString
from django.utils.timezone import now

from jobs.methods.registry import all_methods
from webapp.accounts.models import Team, User
from webapp.runs.figures import Headline, headline
from webapp.runs.lists import chips, fields
from webapp.runs.lists.cells import cells
from webapp.runs.lists.columns import BY_KEY, NAME, Column, ordering
from webapp.runs.lists.filters import Asking, where
from webapp.runs.lists.fleet import Fleet, fleet_of
from webapp.runs.lists.grammar import Mistake, Query, parse
from webapp.runs.lists.groups import GROUPINGS, Group, first_of_each, groups_of
from webapp.runs.lists.state import ListState
from webapp.runs.models import Run, SavedView
from webapp.runs.states import ACTIVE, State

PAGE_SIZE = 40
# What a line needs: neither specs nor what was found in a dataset's files is read for it.
_READ = (
    "team_id", "name", "kind", "method", "state", "desired", "attempt", "last_step", "total_steps", "summary", "train_loss", "eval_loss",
    "peak_memory_bytes", "duration", "archived_at", "failure_code", "started_at", "finished_at", "created_at", "created_by__username",
    "base_model__name", "dataset_version__number", "dataset_version__dataset__name", "experiment__name",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One run with the figures of its line; `figure` is None where nothing was measured."""

    run: Run
    method: str
    figure: Headline | None
    seconds: float | None
    columns: list[Column]

    @property
    def cells(self) -> SafeString:
        """Its cells after that of the name, as HTML."""
        return cells(self, self.columns)


@dataclass(frozen=True)
class Head:
    """The head of a column: where it leads, and how the list is sorted by it now (`ascending`, `descending` or nothing)."""

    column: Column
    url: str
    sorted: str


@dataclass(frozen=True)
class Wrong:
    """A part of the search that was not understood: what stands before it, itself, what follows, and what is said of it."""

    before: str
    part: str
    after: str
    words: str
    values: list[str]
    unknown_field: bool

    @property
    def place(self) -> int:
        """Where it begins, from 1."""
        return len(self.before) + 1


@dataclass(frozen=True)
class Listing:
    """The page: its rows or groups, the counts of the whole team, and the state that it was asked for."""

    state: ListState
    rows: list[Row]
    groups: list[Group]
    page: Page[Any]
    matching: int
    total: int
    running: int
    queued: int
    archived: int
    fleet: Fleet
    query: Query
    views: list[SavedView]

    @property
    def is_moving(self) -> bool:
        """Whether anything of the team will change by itself, so that the page should look again."""
        return bool(self.running or self.queued)

    @property
    def shown(self) -> int:
        """How many runs stand on the page."""
        return len(self.rows) + sum(len(group.rows) for group in self.groups)

    @property
    def columns(self) -> list[Column]:
        """The columns beside the run's name."""
        return _columns(self.state)

    @property
    def heads(self) -> list[Head]:
        """The heads of all columns."""
        return [Head(column, self.state.sorted_by(column.key), self._sorted(column.key)) for column in (NAME, *self.columns)]

    def _sorted(self, key: str) -> str:
        return {key: "ascending", f"-{key}": "descending"}.get(self.state.sort, "")

    @property
    def width(self) -> int:
        """How many columns the table has, with that of the boxes."""
        return len(self.state.columns) + 2

    @property
    def mistakes(self) -> list[Wrong]:
        """What was not understood, in words and with its place."""
        return [_wrong(self.state.q, mistake) for mistake in self.query.mistakes]

    @property
    def default(self) -> ListState:
        """The list as it is where nothing is asked."""
        return ListState()

    @property
    def grouping(self) -> Any:
        """The name of what the list is grouped by."""
        return GROUPINGS[self.state.group].label if self.state.group else ""

    @property
    def only_name(self) -> str:
        """The name of the one group that is shown."""
        if not self.rows:
            return ""
        name = GROUPINGS[self.state.group].name_of(self.rows[0].run)
        return method_names().get(name, name) if self.state.group == "method" else name

    @property
    def all_groups(self) -> str:
        """The query string of the list with all groups."""
        return self.state.query(only="")

    @property
    def previous(self) -> str:
        """The query string of the page before."""
        return self.state.query(page=self.page.previous_page_number())

    @property
    def next(self) -> str:
        """The query string of the page after."""
        return self.state.query(page=self.page.next_page_number())

    @property
    def chips(self) -> list[chips.Chip]:
        """The lists that are a click away: those of every team, and those that were saved."""
        return chips.chips(self.state, self.views, self.archived)

    @property
    def view(self) -> SavedView | None:
        """The saved view that this list is."""
        return next((view for view in self.views if view.state == self.state.saved), None)

    @property
    def shows_archived(self) -> bool:
        """Whether an archived run stands on the page."""
        return any(row.run.archived_at for row in self._every_row())

    @property
    def shows_live(self) -> bool:
        """Whether one stands there that is not archived."""
        return any(row.run.archived_at is None for row in self._every_row())

    def _every_row(self) -> Iterator[Row]:
        yield from self.rows
        for group in self.groups:
            yield from group.rows


def listing(team: Team, user: User, asked: QueryDict) -> Listing:
    """The runs of a team as `user` asks for them; what may be asked stands in `lists.state.ListState`."""
    state, moment = ListState.of(asked), now()
    query = parse(state.q, fields.FIELDS)
    runs = team.runs.filter(where(query.terms, Asking(team, user, moment)))
    hidden = Q(archived_at__isnull=False)
    counts = team.runs.aggregate(
        # The state, as it is in the index that the archive's column is in: the rows themselves are not read.
        total=Count("state"),
        archived=Count("state", filter=hidden),
        running=Count("state", filter=Q(state__in=ACTIVE)),
        queued=Count("state", filter=Q(state=State.QUEUED)),
    )
    # Without a search every run matches that is not archived: they need not be counted again.
    shown = None if query.terms else counts["total"] - counts["archived"]
    rows, groups, page, matching = _arranged(runs, state, moment, shown)
    views = SavedView.objects.filter(Q(user=user) | Q(shared=True), team=team).select_related("user")
    return Listing(
        state=state, rows=rows, groups=groups, page=page, matching=matching, fleet=fleet_of(team, moment), query=query,
        views=list(views), **counts,
    )  # fmt: skip


def _arranged(runs: QuerySet[Run], state: ListState, moment: datetime, count: int | None) -> tuple[list[Row], list[Group], Page[Any], int]:
    """Rows or groups of the page, the page, and how many runs match: `count` where that is known, unless one group is shown."""
    order = ordering(state.sort)
    if state.group and state.only:
        runs = runs.filter(GROUPINGS[state.group].only(state.only))
    if not state.group or state.only:
        pages = Paginator(runs.order_by(*order).values_list("pk", flat=True), PAGE_SIZE)
        if count is not None and not state.only:
            pages.count = count
        ids: Page[Any] = pages.get_page(state.page)
        return list(_rows(ids.object_list, moment, _columns(state)).values()), [], ids, ids.paginator.count
    grouping = GROUPINGS[state.group]
    matching = runs.count() if count is None else count
    groups, page = groups_of(runs, grouping, state.page, state.closed)
    first = first_of_each(runs, grouping, [group.key for group in groups if not group.closed], order)
    read = _rows([pk for _key, pk in first], moment, _columns(state))
    by_key = {group.key: group for group in groups}
    for key, pk in first:
        by_key[key].rows.append(read[pk])
    for group in groups:
        group.name = method_names().get(group.name, group.name) if state.group == "method" else group.name
        group.toggle_url, group.all_url = state.toggled(group.key), state.query(only=group.key, closed=frozenset(), page=1)
    return [], groups, page, matching


def _rows(ids: Iterable[Any], moment: datetime, columns: list[Column]) -> dict[Any, Row]:
    """The lines of runs by id, in the order of the ids. Two queries."""
    ids = list(ids)
    found = Run.objects.filter(pk__in=ids).select_related("created_by", "base_model", "dataset_version__dataset", "experiment")
    by_id = {run.pk: run for run in found.only(*_READ).prefetch_related("tags")}
    return {pk: _row(by_id[pk], moment, columns) for pk in ids if pk in by_id}


def _columns(state: ListState) -> list[Column]:
    return [BY_KEY[key] for key in state.columns]


def _row(run: Run, moment: datetime, columns: list[Column]) -> Row:
    return Row(
        run=run,
        method=method_names().get(run.method, run.method),
        figure=headline(run.summary),
        seconds=seconds_of(run, moment) if run.is_active or run.duration is None else run.duration.total_seconds(),
        columns=columns,
    )


@cache
def method_names() -> Mapping[str, str]:
    """The names of methods by id."""
    return {method.id: method.name for method in all_methods()}


def seconds_of(run: Run, moment: datetime) -> float | None:
    """From the first start to the end (or to `moment`); None before the first start."""
    if run.started_at is None:
        return None
    return max(0.0, ((run.finished_at or moment) - run.started_at).total_seconds())


def _wrong(q: str, mistake: Mistake) -> Wrong:
    part = slice(mistake.start, mistake.end)
    words, values = fields.words_of(mistake), fields.values_of(mistake)
    return Wrong(q[: mistake.start], q[part], q[mistake.end :], words, values, mistake.code == "unknown_field")
