"""Pages of lists, as OpenAI has them: what comes `after` an id, at most `limit`, and whether there is more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from django.db.models import Q, QuerySet

from webapp.api.errors import ApiError
from webapp.api.ids import parse

Order = Literal["asc", "desc"]


def page(rows: QuerySet[Any], shown: Callable[[Any], Any], after: str | None, limit: int, order: Order, *, prefix: str) -> dict[str, Any]:
    """A page of rows that have `created_at`, which with their id is their order; `shown` makes a row's object, which has `id`.

    Raises `ApiError` 400 where `after` names none of the rows.
    """
    if after:
        rows = beyond(rows, row_after(rows, after, prefix), order)
    sign = "-" if order == "desc" else ""
    found = list(rows.order_by(f"{sign}created_at", f"{sign}pk")[: limit + 1])
    return listed([shown(row) for row in found[:limit]], has_more=len(found) > limit)


def row_after(rows: QuerySet[Any], after: str, prefix: str) -> Any:
    """The row that `after` names. Raises `ApiError` 400."""
    try:
        row = rows.filter(pk=parse(prefix, after)).first()
    except ApiError:
        row = None
    if row is None:
        raise unknown_after(after)
    return row


def unknown_after(after: str) -> ApiError:
    """The refusal of an `after` that is none of the list's."""
    return ApiError(400, f"'after' is {after[:100]!r}, which is no id of this list.", code="invalid_value", param="after")


def beyond(rows: QuerySet[Any], last: Any, order: Order) -> QuerySet[Any]:
    """The rows behind the one that ended a page."""
    compare = "lt" if order == "desc" else "gt"
    later = {f"created_at__{compare}": last.created_at}
    same = {"created_at": last.created_at, f"pk__{compare}": last.pk}
    return rows.filter(Q(**later) | Q(**same))


def listed(data: list[Any], *, has_more: bool) -> dict[str, Any]:
    """The object of a list."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0].id if data else None,
        "last_id": data[-1].id if data else None,
        "has_more": has_more,
    }
