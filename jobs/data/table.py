"""CSV and its relatives: separator, quoting and header recognised from the start of the file, rows with their line numbers."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.data.names import KNOWN_NAMES
from jobs.data.rows import Limits, Problem, Row, place, problem
from jobs.data.text import TextFacts, read_lines

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
# Stands for "one column": a control character that no text holds.
NO_SEPARATOR = "\x1f"
HEAD_RECORDS = 200
TITLE_LINES = 10
_EXCEL_HINT = re.compile(r'"?sep=(.)"?\r?\n')


@dataclass(frozen=True)
class Dialect:
    """How a table is written. `skipped` lines stand before the header (or the first row)."""

    separator: str
    escape: str | None
    skip_blanks: bool
    skipped: int
    titles: int
    header: bool
    columns: tuple[str, ...]
    warnings: tuple[Problem, ...] = ()

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Python's parser, set up for this table."""
        return csv.reader(lines, delimiter=self.separator, escapechar=self.escape, skipinitialspace=self.skip_blanks, strict=True)


@dataclass(frozen=True)
class _Trial:
    separator: str
    escape: str | None
    records: list[tuple[int, list[str]]]
    width: int
    share: float
    errors: int

    @property
    def score(self) -> tuple[float, int, int]:
        return (round(self.share, 1) if self.width > 1 else 0.0, -self.errors, self.width)


def find_table(head: str, *, whole: bool, sure: bool) -> Dialect | None:
    """The dialect of the table that `head` begins, or None where it looks like no table. `whole`: `head` is the entire file;
    `sure`: it is known to be a table, perhaps of one column.
    """
    excel = _EXCEL_HINT.match(head)
    body = head[excel.end() :] if excel else head
    if not whole:
        body = body[: max(body.rfind("\n"), body.rfind("\r")) + 1] or body
    separators = excel[1] if excel and excel[1] in SEPARATORS else "".join(SEPARATORS)
    blanks = bool(re.search(r'[,;|] "', body))
    trials = [_try(body, separator, escape, blanks) for separator in separators for escape in (None, "\\")]
    best = max(trials, key=lambda trial: trial.score)
    if best.records and len(best.records[_titles(best)][1]) == 1 and best.share < 0.8:
        best = _try(body, NO_SEPARATOR, None, blanks)
    if not best.records or (not sure and not _convincing(best, body)):
        return None
    skipped = _titles(best)
    records = best.records[skipped:]
    first_line = (1 if excel else 0) + (records[0][0] - 1)
    return _dialect(best, blanks, first_line, skipped, [cells for _, cells in records])


def _try(body: str, separator: str, escape: str | None, blanks: bool) -> _Trial:
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, escapechar=escape, skipinitialspace=blanks, strict=True)
    records: list[tuple[int, list[str]]] = []
    errors, line = 0, 1
    while len(records) < HEAD_RECORDS and errors < 20:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error:
            errors += 1
            line = reader.line_num + 1
            continue
        if any(cells):
            records.append((line, cells))
        line = reader.line_num + 1
    widths = Counter(len(cells) for _, cells in records)
    width, count = max(widths.items(), key=lambda item: (item[1], item[0])) if widths else (0, 0)
    if len(records) > 1 and count == 1:
        width, count = len(records[0][1]), 1
    return _Trial(separator, escape, records, width, count / len(records) if records else 0.0, errors)


def _convincing(trial: _Trial, body: str) -> bool:
    """Whether a file that may as well be prose is a table: nearly every line has as many cells as the others."""
    if trial.width < 2:
        return False
    names = {cell.strip().lower() for cell in trial.records[0][1]}
    if len(names & KNOWN_NAMES) >= 2 and trial.errors == 0:
        return True
    spaced = body.count(trial.separator + " ") * 2 > body.count(trial.separator)
    return len(trial.records) > 1 and trial.share >= 0.9 and trial.errors == 0 and not (spaced and trial.separator in ",;")


def _titles(trial: _Trial) -> int:
    """How many records before the table are titles or comments: they have fewer cells than all that follow."""
    count = 0
    for _, cells in trial.records[:TITLE_LINES]:
        filled = sum(bool(cell.strip()) for cell in cells)
        if trial.width > 1 and ((filled == 1 and len(cells) < trial.width) or (filled <= 1 and cells[0].startswith("#"))):
            count += 1
        else:
            break
    return count if count < len(trial.records) else 0


def _dialect(trial: _Trial, blanks: bool, skipped_lines: int, titles: int, records: list[list[str]]) -> Dialect:
    first = records[0]
    header = _has_header(records)
    warnings = [problem("lines_skipped", severity="warning", count=skipped_lines)] if titles else []
    if header:
        columns, renamed = _column_names(first)
        if renamed:
            warnings.append(problem("header_renamed", severity="warning", columns=", ".join(renamed)))
    else:
        columns = tuple(f"column_{number}" for number in range(1, len(first) + 1))
        warnings.append(problem("header_missing", severity="warning", columns=", ".join(columns)))
    return Dialect(trial.separator, trial.escape, blanks, skipped_lines, titles, header, columns, tuple(warnings))


def _column_names(cells: list[str]) -> tuple[tuple[str, ...], list[str]]:
    names: list[str] = []
    renamed = []
    for number, cell in enumerate(cells, 1):
        wanted = " ".join(cell.split()) or f"column_{number}"
        name, copy = wanted, 2
        while name in names:
            name, copy = f"{wanted}_{copy}", copy + 1
        if name != " ".join(cell.split()):
            renamed.append(name)
        names.append(name)
    return tuple(names), renamed


def _has_header(records: list[list[str]]) -> bool:
    """Whether the first record names the columns. It does unless it looks like data: numbers, sentences, values seen again below."""
    first = [cell.strip() for cell in records[0]]
    if len({cell.lower() for cell in first} & KNOWN_NAMES) * 2 >= len(first):
        return True
    if any(_is_number(cell) for cell in first) or not any(first):
        return False
    if any(len(cell) > 100 or re.search(r"\w[.!?]$", cell) or len(cell.split()) > 8 for cell in first):
        return len(first) > 8
    below = [[cell.strip() for cell in record] for record in records[1:]]
    return not any(cell and any(len(row) > number and row[number] == cell for row in below) for number, cell in enumerate(first))


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?[\d.,]*\d[\d.,]*%?", text))


def read_table(file: io.TextIOWrapper, facts: TextFacts, dialect: Dialect, limits: Limits) -> Iterator[Row | Problem]:
    """The rows below the header, each at the line where it begins. Rows without any filled cell are passed over."""
    csv.field_size_limit(limits.line_characters)
    waiting: list[Problem] = []

    def lines() -> Iterator[str]:
        for number, line in read_lines(file, facts, limits):
            if number <= dialect.skipped:
                continue
            if isinstance(line, Problem):
                waiting.append(line)
            yield "\n" if isinstance(line, Problem) else line

    reader = dialect.reader(lines())
    columns, width = dialect.columns, len(dialect.columns)
    header, number = dialect.header, dialect.skipped + 1
    while True:
        start, cells, fault = number, None, ""
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as failure:
            fault = _quote_reason(failure)
        number = dialect.skipped + reader.line_num + 1  # type: ignore[attr-defined]
        yield from waiting
        # A header that is broken is a problem already, and no later row takes its place.
        header = header and not (waiting and cells == [])
        waiting.clear()
        at = place(start)
        if cells is None:
            last = number - 1
            yield problem("table_quote", at, reason=fault + (f" (read up to line {last})" if last > start else ""))
        elif not any(cells):
            continue
        elif header:
            header = False
        elif len(cells) != width:
            yield problem("table_columns", at, found=len(cells), expected=width)
        else:
            yield Row(start, dict(zip(columns, cells, strict=True)))
    yield from waiting


def _quote_reason(failure: csv.Error) -> str:
    text = str(failure)
    if "unexpected end of data" in text:
        return "a quote that is opened here is never closed"
    if "field larger" in text:
        return "a cell is too long; perhaps a quote that is opened here is never closed"
    if "expected after" in text:
        return "text stands after a closing quote"
    return text
