"""Labels, turns and languages of a version as bars: what is there, and which share of the rows it has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import get_language, gettext

from webapp.datasets.models import DatasetVersion

# One label in so many rows of the most frequent one is called rare.
RARE = 10


@dataclass(frozen=True)
class Bar:
    """`rows` of a name, as a share of all (0 to 1); `length` is that of the longest bar's."""

    name: str
    rows: int
    share: float
    length: float
    code: str = ""


@dataclass(frozen=True)
class Chart:
    """Bars of one thing, and how many rows they are of."""

    name: str
    bars: list[Bar]
    rows: int
    distinct: int
    uneven: bool = False


@dataclass(frozen=True)
class Balance:
    """What the page shows; None where the rows have no such thing."""

    labels: list[Chart]
    turns: Chart | None
    languages: Chart | None
    unclear: int


def balance(version: DatasetVersion) -> Balance:
    """From the second pass, or before it, as far as the report of the validation goes."""
    found = version.examination
    labels = [_labels(split, one) for split, one in (found.get("labels") or {}).items() if one]
    if not found and version.report.get("labels"):
        labels = [_labels("", version.report["labels"])]
    languages = found.get("languages") or {}
    return Balance(labels, _turns(found.get("turns")), _languages(languages), languages.get("unclear", 0))


def _chart(name: str, items: Iterable[tuple[str, int, str]], *, distinct: int = 0, uneven: bool = False) -> Chart:
    items = list(items)
    total = sum(rows for _, rows, _ in items) or 1
    longest = max((rows for _, rows, _ in items), default=1)
    bars = [Bar(text, rows, rows / total, 100 * rows / longest, code) for text, rows, code in items]
    return Chart(name, bars, total, distinct or len(items), uneven)


def _labels(split: str, counted: dict[str, Any]) -> Chart:
    rows = [one["rows"] for one in counted["counts"]]
    uneven = len(rows) > 1 and rows[-1] * RARE <= rows[0]
    return _chart(split, [(one["label"], one["rows"], "") for one in counted["counts"]], distinct=counted["distinct"], uneven=uneven)


def _turns(counted: list[dict[str, int]] | None) -> Chart | None:
    if not counted:
        return None
    names = [gettext("%(n)d or more") % {"n": one["turns"]} if one["more"] else str(one["turns"]) for one in counted]
    return _chart("", [(name, one["rows"], "") for name, one in zip(names, counted, strict=True)])


def _languages(found: dict[str, Any]) -> Chart | None:
    if not found.get("counts"):
        return None
    return _chart("", [(language_name(one["code"]), one["rows"], one["code"]) for one in found["counts"][:20]])


def language_name(code: str) -> str:
    """A language's name in the reader's language; the code itself where it is not known."""
    from babel import Locale, UnknownLocaleError

    if code == "zxx":
        return gettext("no language (codes, numbers)")
    try:
        shown = Locale.parse(get_language() or "en", sep="-").languages.get(code)
    except (UnknownLocaleError, ValueError):
        shown = None
    return shown or code
