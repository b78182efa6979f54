"""A table of results, apart from where it came from, and as CSV, Markdown and LaTeX. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from webapp.core.formats import NONE, THIN
from webapp.core.spreadsheet import harmless

Raw = str | int | float | None


@dataclass(frozen=True)
class Head:
    """A column: `id` names it in CSV, with its unit (`peak_memory_bytes`); `label` is what a reader sees; `help` a sentence, perhaps none.

    `numeric` columns are set to the right.
    """

    id: str
    label: str
    numeric: bool = True
    help: str = ""


@dataclass(frozen=True)
class Cell:
    """One figure or word: `raw` for machines, in the unit of its column; `words` for people; `notes` stand below them; `best` marks
    the best figure of the column.
    """

    raw: Raw
    words: str
    notes: tuple[str, ...] = ()
    best: bool = False


EMPTY = Cell(None, NONE)


@dataclass(frozen=True)
class Table:
    """Columns, and rows of as many cells."""

    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]


_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~])")
_BOLD = r"\textbf{{{}}}"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}",
    THIN: r"\,", "\u00a0": "~", "–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "→": r"$\rightarrow$", "³": r"\textsuperscript{3}",
}  # fmt: skip


def to_csv(table: Table) -> str:
    """Comma-separated values by RFC 4180: the ids of the columns, then what is known of each row in plain units; unknown is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([head.id for head in table.heads])
    writer.writerows([_plain(cell.raw) for cell in row] for row in table.rows)
    return out.getvalue()


def _plain(raw: Raw) -> str:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return harmless(raw)
    return str(int(raw)) if float(raw).is_integer() else repr(raw)


def to_markdown(table: Table) -> str:
    """A table of GitHub's Markdown, numbers to the right."""
    lines = [
        _line([_markdown(head.label) for head in table.heads]),
        _line(["---:" if head.numeric else "---" for head in table.heads]),
        *(_line([_noted(cell, _markdown, "**{}**") for cell in row]) for row in table.rows),
    ]
    return "\n".join(lines) + "\n"


def _line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def _markdown(words: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(words.split(None)) if "\n" in words or "\r" in words else words)


def to_latex(table: Table, caption: str, label: str) -> str:
    """A floating table with the rules of booktabs, a package; needs an engine that reads UTF-8, as all of today do."""
    columns = "".join("r" if head.numeric else "l" for head in table.heads)
    body = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex(caption)}}}",
        rf"  \label{{tab:{re.sub('[^a-z0-9]+', '-', label.lower()).strip('-')}}}",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        rf"    {' & '.join(latex(head.label) for head in table.heads)} \\",
        r"    \midrule",
        *(rf"    {' & '.join(_noted(cell, latex, _BOLD) for cell in row)} \\" for row in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "% \\usepackage{booktabs}\n" + "\n".join(body) + "\n"


def _noted(cell: Cell, escape: Callable[[str], str], strong: str) -> str:
    words = strong.format(escape(cell.words)) if cell.best else escape(cell.words)
    return f"{words} ({'; '.join(map(escape, cell.notes))})" if cell.notes else words


def latex(words: str) -> str:
    """Text that LaTeX sets as it is read: every character that means something to it is escaped; line breaks become spaces."""
    return "".join(_LATEX.get(letter, " " if letter.isspace() else letter) for letter in words)


def marked(rows: Sequence[Sequence[Cell]], column: int, *, lower_is_better: bool) -> list[list[Cell]]:
    """The rows with the best figure of a column marked, and its equals; nothing is best of fewer than two, or where all are alike."""
    values = [row[column].raw for row in rows]
    known = [value for value in values if isinstance(value, int | float)]
    if len(known) < 2 or len(set(known)) == 1:
        return [list(row) for row in rows]
    best = min(known) if lower_is_better else max(known)

    def mark(row: Sequence[Cell]) -> list[Cell]:
        cell = row[column]
        shown = Cell(cell.raw, cell.words, cell.notes, best=True) if cell.raw == best else cell
        return [*row[:column], shown, *row[column + 1 :]]

    return [mark(row) for row in rows]
