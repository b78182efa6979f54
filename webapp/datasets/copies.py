"""Pairs of rows that are the same or nearly so: read from the file that the second pass wrote, a page at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from jobs.data.examination import PAIRS
from webapp.datasets.models import DatasetVersion

PAGE = 50
KINDS = ("exact", "near")


@dataclass(frozen=True)
class Pairs:
    """One page of pairs; `following` says that there is another."""

    pairs: list[dict[str, Any]] = field(default_factory=list)
    number: int = 1
    following: bool = False


def pairs(version: DatasetVersion, kind: str = "", *, across: bool = False) -> Iterator[dict[str, Any]]:
    """Pairs of one kind (all without one), those between splits alone where `across` says so; they come first in any case."""
    path = version.check_folder / PAIRS
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            pair = json.loads(line)
            if (not kind or pair["kind"] == kind) and not (across and pair["split"] == pair["other_split"]):
                yield pair


def page_of(version: DatasetVersion, kind: str, number: int, *, across: bool = False) -> Pairs:
    """Page `number` (from 1) of the pairs."""
    found = list(islice(pairs(version, kind, across=across), (number - 1) * PAGE, number * PAGE + 1))
    return Pairs(found[:PAGE], number, len(found) > PAGE)


def totals(version: DatasetVersion) -> dict[str, int]:
    """Rows that repeat another one: `exact`, `near`, and of both together `across` splits. Zeros before the second pass."""
    found = version.examination
    sums = {kind: _sum(found.get(name)) for kind, name in (("exact", "copies"), ("near", "near"))}
    between = sum(one["rows"] for name in ("copies", "near") for one in (found.get(name) or {}).get("across", []))
    return {**sums, "across": between}


def _sum(counts: dict[str, Any] | None) -> int:
    if not counts:
        return 0
    return int(sum(counts["within"].values()) + sum(one["rows"] for one in counts["across"]))
