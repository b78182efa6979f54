"""What a method or an analysis shows of a model's inside: its `method` events, and tables of one cell for each layer and module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import QuerySet

from webapp.runs.models import Record, Run

T = TypeVar("T")


@dataclass(frozen=True)
class Row(Generic[T]):
    """One layer ("" for modules outside the layers): a cell for each module, None where there is none."""

    layer: str
    cells: list[T | None]


def told(run: Run, name: str) -> QuerySet[Record]:
    """The records of the `method` events of a name."""
    return run.records.filter(kind="method", data__name=name)


def last_told(run: Run, name: str) -> dict[str, Any] | None:
    """The data of the last of them; None where there is none yet."""
    found: dict[str, Any] | None = told(run, name).order_by("-attempt", "-seq").values_list("data", flat=True).first()
    return found


def by_layer(
    places: Sequence[tuple[int | None, str]], cells: Sequence[T], columns: Sequence[str] | None = None
) -> tuple[list[str], list[Row[T]]]:
    """(modules, rows) of a table of one cell a place, a place being (layer, module); modules outside the layers come last. `columns` are
    the modules in their order, by default that of their first places.
    """
    names = list(columns) if columns is not None else list(dict.fromkeys(module for _, module in places))
    rows: dict[int | None, list[T | None]] = {}
    for (layer, module), cell in zip(places, cells, strict=True):
        rows.setdefault(layer, [None] * len(names))[names.index(module)] = cell
    ordered = sorted(rows, key=lambda layer: (layer is None, layer or 0))
    return names, [Row("" if layer is None else str(layer), rows[layer]) for layer in ordered]
