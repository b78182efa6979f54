"""The state of the list goes into its URL and comes back as it was."""

from __future__ import annotations

from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from webapp.runs.lists.columns import BY_KEY, CHOICE, DEFAULT_KEYS
from webapp.runs.lists.groups import GROUPINGS
from webapp.runs.lists.state import ListState

KEYS = tuple(column.key for column in CHOICE)
ORDERED = st.sets(st.sampled_from(KEYS), min_size=1).map(lambda some: tuple(key for key in KEYS if key in some))
TEXT = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30).map(str.strip)
STATES = st.builds(
    ListState,
    q=TEXT,
    group=st.sampled_from(tuple(GROUPINGS)),
    only=TEXT,
    sort=st.sampled_from([*BY_KEY, *(f"-{key}" for key in BY_KEY)]),
    columns=ORDERED,
    closed=st.frozensets(TEXT, max_size=4),
    page=st.integers(1, 99_999),
)


@given(STATES)
def test_a_state_is_read_back_from_its_url(state: ListState) -> None:
    assert ListState.of(QueryDict(state.query(page=state.page)[1:])) == state


def test_what_is_as_it_is_by_itself_is_not_said() -> None:
    assert ListState().query() == "?"
    assert ListState.of(QueryDict("")) == ListState()
    assert ListState(q="a b", sort="eval", page=3).query() == "?q=a+b&sort=eval"


def test_what_is_unknown_is_as_if_it_were_not_said() -> None:
    asked = "group=colour&sort=-colour&col=colour&page=-3&closed=a&only=b"
    assert ListState.of(QueryDict(asked)) == ListState()
    assert ListState.of(QueryDict("page=99999999999999999999")).page == 1


def test_a_column_is_sorted_in_its_own_direction_first_and_then_in_the_other() -> None:
    assert ListState().sorted_by("eval") == "?sort=eval"
    assert ListState(sort="eval").sorted_by("eval") == "?sort=-eval"
    assert ListState(sort="-eval").sorted_by("eval") == "?sort=eval"
    assert ListState(sort="eval").sorted_by("accuracy") == "?sort=-accuracy"
    assert ListState(sort="-accuracy").sorted_by("accuracy") == "?sort=accuracy"


def test_a_group_is_closed_and_opened_where_one_is() -> None:
    state = ListState(group="method", page=2)
    assert state.toggled("lora") == "?group=method&closed=lora&page=2"
    closed = ListState.of(QueryDict(state.toggled("lora")[1:]))
    assert closed.closed == {"lora"}
    assert closed.toggled("lora") == "?group=method&page=2"


def test_a_view_keeps_neither_page_nor_closed_groups() -> None:
    assert ListState(q="x", group="method", closed=frozenset({"lora"}), page=4).saved == "q=x&group=method"
    assert ListState(columns=("owner",)).saved == "col=owner"
    assert set(DEFAULT_KEYS) < set(KEYS)
