"""The list of all problems of a version, a page at a time: read from the file that the validation wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from jobs.data.check_files import LISTED_PROBLEMS, PROBLEMS
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.create_dataset import SPLITS

PAGE = 50


@dataclass(frozen=True)
class Kind:
    """Problems of one kind: how many there are in all rows, and the remedy that the first one names."""

    code: str
    severity: str
    count: int
    example: str
    remedy: str


@dataclass(frozen=True)
class Filter:
    """What is shown of the list: problems of a `code`, of a `split`, from a `line` on; empty means all."""

    code: str = ""
    split: str = ""
    line: int = 0

    def takes(self, line: bytes) -> bool:
        """Whether a line of the file passes, told without reading it as JSON: a quote within a text is written with a backslash."""
        return all(part in line for part in self._parts)

    @property
    def _parts(self) -> tuple[bytes, ...]:
        wanted = (("code", self.code), ("split", self.split))
        return tuple(f'"{key}":{json.dumps(value)}'.encode() for key, value in wanted if value)


@dataclass(frozen=True)
class Listed:
    """One page of the list; `following` says that there is another."""

    problems: list[dict[str, Any]] = field(default_factory=list)
    number: int = 1
    following: bool = False


def kinds(version: DatasetVersion) -> list[Kind]:
    """The kinds of problems by how many rows have them, errors first, each with an example from the report."""
    report = version.report
    found = []
    for severity, counts, kept in (("error", "counts", "problems"), ("warning", "warning_counts", "notes")):
        examples = {one["code"]: one for one in reversed(report.get(kept, []))}
        for code, count in report.get(counts, {}).items():
            example = examples.get(code, {})
            found.append(Kind(code, severity, count, example.get("message", ""), example.get("remedy", "")))
    return found


def problems(version: DatasetVersion, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Every listed problem that passes the filter, in the order of the files. A version from before lists were kept has its report's."""
    path = version.check_folder / PROBLEMS
    if not path.is_file():
        report = version.report
        kept = [*report.get("problems", []), *report.get("notes", [])]
        lines = [json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() for one in kept]
        yield from (one for line in lines if wanted.takes(line) and (one := json.loads(line))["line"] >= wanted.line)
        return
    with path.open("rb") as file:
        for line in file:
            if wanted.takes(line) and (one := json.loads(line))["line"] >= wanted.line:
                yield one


def page_of(version: DatasetVersion, wanted: Filter, number: int) -> Listed:
    """Page `number` (from 1) of the list."""
    found = list(islice(problems(version, wanted), (number - 1) * PAGE, number * PAGE + 1))
    return Listed(found[:PAGE], number, len(found) > PAGE)


def left_out(version: DatasetVersion) -> int:
    """How many problems are counted but not listed, because there are too many."""
    totals = (sum(version.report.get(name, {}).values()) for name in ("counts", "warning_counts"))
    return sum(max(0, total - LISTED_PROBLEMS) for total in totals)


def filter_of(values: Any) -> Filter:
    """The filter of a query string; what makes no sense is left out."""
    line = values.get("line", "")
    split = values.get("split", "")
    return Filter(
        code=values.get("code", "")[:60],
        split=split if split in SPLITS else "",
        line=int(line) if line.isascii() and line.isdigit() and len(line) < 10 else 0,
    )
