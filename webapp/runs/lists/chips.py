"""The row of lists that are a click away: those that every team has, and those that somebody saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.translation import gettext as _

from webapp.runs.lists.state import ListState
from webapp.runs.models import SavedView


@dataclass(frozen=True)
class Chip:
    """One list: its name, where it leads, whether it is the one that is shown, and how many runs it has where that is said."""

    name: str
    url: str
    current: bool
    saved: bool = False
    count: int | None = None


def chips(state: ListState, views: Iterable[SavedView], archived: int) -> list[Chip]:
    """All of them. The first ones change the search alone, and keep grouping, order and columns."""

    def search(name: str, q: str, count: int | None = None) -> Chip:
        return Chip(name, state.query(q=q, only=""), state.q == q, count=count)

    ready = [
        search(_("All"), ""),
        search(_("Active"), "status:active"),
        search(_("Failed"), "status:failed"),
        search(_("Mine"), "owner:me"),
    ]
    kept = [search(_("Archived"), "is:archived", archived)] if archived else []
    saved = [Chip(view.name, f"?{view.state}", view.state == state.saved, saved=True) for view in views]
    return ready + kept + saved
