"""What stands in the URL of the list: the search, the grouping, the order, the columns, which groups are closed, the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from django.http import QueryDict

from webapp.runs.lists.columns import BY_KEY, CHOICE, DEFAULT_KEYS, DEFAULT_SORT
from webapp.runs.lists.groups import GROUPINGS

QUERY_LENGTH = 400
KEY_LENGTH = 40
# A closed group stands in the URL by its key; more than these are not remembered.
CLOSED = 50


@dataclass(frozen=True)
class ListState:
    """One list, as a URL says it. `only` is the key of one group that is shown alone; `columns` are in the order of `CHOICE`."""

    q: str = ""
    group: str = ""
    only: str = ""
    sort: str = DEFAULT_SORT
    columns: tuple[str, ...] = DEFAULT_KEYS
    closed: frozenset[str] = frozenset()
    page: int = 1

    @classmethod
    def of(cls, asked: QueryDict) -> ListState:
        """The state that a URL asks for; what is not known there is as if it were not said."""
        group, sort = asked.get("group", ""), asked.get("sort", DEFAULT_SORT)
        group = group if group in GROUPINGS else ""
        page = asked.get("page", "1")
        return cls(
            q=asked.get("q", "").replace("\0", "").strip()[:QUERY_LENGTH],
            group=group,
            only=asked.get("only", "")[:KEY_LENGTH] if group else "",
            sort=sort if sort.removeprefix("-") in BY_KEY else DEFAULT_SORT,
            columns=_known(asked.getlist("col")),
            closed=frozenset(key[:KEY_LENGTH] for key in asked.getlist("closed")[:CLOSED]) if group else frozenset(),
            page=int(page) if page.isdecimal() and len(page) < 7 else 1,
        )

    def query(self, **changes: Any) -> str:
        """The query string of this state with `changes`, from `?` on. What is as it is by itself is left out; any change but that of the
        page or of closed groups leads back to the first page, with all groups open.
        """
        first: dict[str, Any] = {} if changes.keys() & {"page", "closed"} else {"page": 1, "closed": frozenset()}
        state = replace(self, **first, **changes)
        default = ListState()
        said: list[tuple[str, str]] = [
            (name, value) for name in ("q", "group", "only", "sort") if (value := getattr(state, name)) != getattr(default, name)
        ]
        if state.columns != default.columns:
            said += [("col", key) for key in state.columns]
        said += [("closed", key) for key in sorted(state.closed)]
        if state.page != 1:
            said.append(("page", str(state.page)))
        return "?" + urlencode(said)

    @property
    def saved(self) -> str:
        """What a saved view keeps of it: everything but the page and what is closed, without the `?`."""
        return self.query(page=1, closed=frozenset())[1:]

    def sorted_by(self, key: str) -> str:
        """The query string that sorts by a column: its own first direction, and the other one where that is the order now."""
        first = f"-{key}" if BY_KEY[key].downwards else key
        other = key if BY_KEY[key].downwards else f"-{key}"
        return self.query(sort=other if self.sort == first else first)

    def toggled(self, key: str) -> str:
        """The query string that closes an open group, or opens a closed one."""
        return self.query(closed=self.closed ^ {key})


def _known(keys: Iterable[str]) -> tuple[str, ...]:
    wanted = set(keys)
    return tuple(column.key for column in CHOICE if column.key in wanted) or DEFAULT_KEYS
