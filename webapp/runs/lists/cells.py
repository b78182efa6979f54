"""The cells of a line of the list, written in Python: a template that asks of each cell which one it is takes most of the page's time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from webapp.core import formats
from webapp.core.templatetags.graft import ago, spark
from webapp.runs.templatetags.runs import base_and_tuned, state_tag

# What it writes: the line (`listing.Row`) and the keys of the columns that are shown.
Cell = Callable[[Any, Collection[str]], str]


def _below(words: object) -> SafeString:
    return format_html('<span class="below">{}</span>', words)


def _method(row: Any, shown: Collection[str]) -> str:
    kind = "" if row.run.kind == "train" else f"{row.run.get_kind_display()}: "
    model = "" if "model" in shown else _below(row.run.base_model.name)
    return format_html("<span>{}{} {}</span>", kind, row.method, model)


def _accuracy(row: Any, _shown: Collection[str]) -> str:
    if row.figure is None:
        return formats.NONE
    return format_html("<span>{}{}</span>", base_and_tuned(row.figure), _below(row.figure.name) if row.figure.of_task else "")


def _time(row: Any, shown: Collection[str]) -> str:
    launched = "" if "created" in shown else _below(ago(row.run.created_at))
    return format_html("<span>{}{}</span>", formats.format_duration(row.seconds), launched)


def _step(row: Any, _shown: Collection[str]) -> str:
    done, total = formats.format_number(row.run.last_step), formats.format_number(row.run.total_steps)
    return f"{done} / {total}" if row.run.total_steps else done


_CELLS: dict[str, Cell] = {
    "status": lambda row, _shown: state_tag(row.run),
    "method": _method,
    "model": lambda row, _shown: row.run.base_model.name,
    "data": lambda row, _shown: str(row.run.dataset_version),
    "experiment": lambda row, _shown: row.run.experiment.name if row.run.experiment else formats.NONE,
    "curve": lambda row, _shown: spark(row.run.summary.get("spark")),
    "loss": lambda row, _shown: formats.format_number(row.run.train_loss, 3),
    "eval": lambda row, _shown: formats.format_number(row.run.eval_loss, 3),
    "accuracy": _accuracy,
    "memory": lambda row, _shown: formats.format_bytes(row.run.peak_memory_bytes),
    "time": _time,
    "step": _step,
    "created": lambda row, _shown: ago(row.run.created_at),
    "owner": lambda row, _shown: str(row.run.created_by),
}
_WORDS = frozenset({"method", "model", "experiment"})


def cells(row: Any, columns: Collection[Any]) -> SafeString:
    """The cells of a line, in the order of the columns (`lists.columns.Column`)."""
    shown = {column.key for column in columns}
    written = (
        format_html(
            '<td{} data-label="{}">{}</td>',
            mark_safe(' class="num"' if column.number else ' class="words"' if column.key in _WORDS else ""),  # noqa: S308
            column.label,
            _CELLS[column.key](row, shown),
        )
        for column in columns
    )
    return mark_safe("".join(written))  # noqa: S308 - each is escaped above
