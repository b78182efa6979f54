"""What the readers give: rows, problems, and the limits they keep to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jobs.errors import CATALOGUE, UserError

Severity = Literal["error", "warning"]
Unit = Literal["line", "row"]
Record = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """How far a file is followed. Sizes in bytes, of the text as unpacked; `line_characters` also bounds a row and a cell."""

    line_characters: int = 10_000_000
    json_depth: int = 64
    columns: int = 200
    rows: int = 20_000_000
    unpacked_bytes: int = 16 * 2**30
    # Real text packs 3 to 20 fold. Small files are let through: a few kilobytes of blanks do no harm.
    gzip_ratio: int = 100
    gzip_ratio_from_bytes: int = 16 * 2**20
    # Parquet holds a text once that stands in every row, such as a system message: honest tables reach some hundreds.
    parquet_ratio: int = 1000
    parquet_ratio_from_bytes: int = 256 * 2**20


@dataclass(frozen=True)
class Row:
    """One row as the file has it. `line` counts from 1: the line where the row begins, or (`unit` "row") the row's number in a
    file without lines of its own (JSON list, Parquet).
    """

    line: int
    value: dict[str, Any]
    unit: Unit = "line"

    @property
    def place(self) -> str:
        """The place as a message begins with it: "Line 12"."""
        return f"{self.unit.capitalize()} {self.line}"


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row (or, on line 0, with the file), in the words of `jobs.errors.CATALOGUE`."""

    code: str
    line: int
    column: int | None
    message: str
    remedy: str
    severity: Severity = "error"

    def to_json(self) -> dict[str, Any]:
        """The problem as it crosses a process."""
        return dict(vars(self))

    def to_error(self, file: str) -> UserError:
        """The same as an exception, for a caller that stops at the first problem."""
        where: dict[str, Any] = {"file": file, "line": self.line}
        if self.column is not None:
            where["column"] = self.column
        return UserError.worded(self.code, self.message, self.remedy, where=where)


def problem(code: str, row: Row | None = None, *, column: int | None = None, severity: Severity = "error", **blanks: Any) -> Problem:
    """Fills in the words of `code` for `row`; without a row it is about the whole file."""
    text = CATALOGUE[code]
    if row is not None:
        blanks |= {"place": row.place, "column": column}
    return Problem(code, row.line if row else 0, column, text.message.format(**blanks), text.remedy.format(**blanks), severity)


def place(line: int, unit: Unit = "line") -> Row:
    """An empty row that only marks a place."""
    return Row(line, {}, unit)


def kind_of(value: Any) -> str:
    """What a JSON value is, in plain words."""
    if value is None:
        return "nothing (null)"
    names: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    names |= {list: "a list", dict: "an object", bytes: "binary data"}
    return names.get(type(value), f"a value of type {type(value).__name__}")
