"""A table in the three forms in which it leaves the page, with what each of them would take for something else."""

from __future__ import annotations

import csv
import io

import pytest

from webapp.core.formats import THIN
from webapp.runs.compare.tables import EMPTY, Cell, Head, Table, latex, marked, to_csv, to_latex, to_markdown

TABLE = Table(
    heads=[Head("run", "Run", numeric=False), Head("peak_memory_bytes", "Peak memory"), Head("accuracy", "Accuracy")],
    rows=[
        [
            Cell("a|b_1 & 50%", "a|b_1 & 50%"),
            Cell(3_852_000_000, f"3.85{THIN}GB", ("−78.6 %", "n = 1")),
            Cell(0.7609, f"76.1{THIN}%", best=True),
        ],
        [Cell('=1+1,"x"', '=1+1,"x"'), EMPTY, Cell(0.242, f"24.2{THIN}%")],
    ],
)


def test_csv_is_read_back_and_starts_no_formula() -> None:
    text = to_csv(TABLE)
    assert text.splitlines(keepends=True)[0] == "run,peak_memory_bytes,accuracy\r\n"
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows[0] == {"run": "a|b_1 & 50%", "peak_memory_bytes": "3852000000", "accuracy": "0.7609"}
    assert rows[1] == {"run": '\'=1+1,"x"', "peak_memory_bytes": "", "accuracy": "0.242"}


@pytest.mark.parametrize("name", ["=SUM(A1)", "+1", "-1", "@x", "\tx"])
def test_every_beginning_of_a_formula_is_text(name: str) -> None:
    table = Table([Head("run", "Run")], [[Cell(name, name)]])
    assert next(csv.reader(io.StringIO(to_csv(table).split("\r\n", 1)[1], newline=""))) == [f"'{name}"]


def test_a_number_below_zero_stays_a_number() -> None:
    assert to_csv(Table([Head("pearson", "Pearson")], [[Cell(-0.25, "-0.25")]])) == "pearson\r\n-0.25\r\n"


def test_markdown() -> None:
    assert to_markdown(TABLE) == (
        "| Run | Peak memory | Accuracy |\n"
        "| --- | ---: | ---: |\n"
        f"| a\\|b\\_1 & 50% | 3.85{THIN}GB (−78.6 %; n = 1) | **76.1{THIN}%** |\n"
        f'| =1+1,"x" | – | 24.2{THIN}% |\n'
    )


def test_markdown_stays_in_its_cell() -> None:
    assert to_markdown(Table([Head("run", "Run")], [[Cell("x", "<b>\n| *y* `z` [a](b)")]])).splitlines()[2] == (
        "| \\<b\\> \\| \\*y\\* \\`z\\` \\[a\\](b) |"
    )


def test_latex() -> None:
    assert to_latex(TABLE, "Runs of 100 % & more", "Night_shift: ARC #1") == (
        "% \\usepackage{booktabs}\n"
        "\\begin{table}\n"
        "  \\centering\n"
        "  \\caption{Runs of 100 \\% \\& more}\n"
        "  \\label{tab:night-shift-arc-1}\n"
        "  \\begin{tabular}{lrr}\n"
        "    \\toprule\n"
        "    Run & Peak memory & Accuracy \\\\\n"
        "    \\midrule\n"
        "    a\\textbar{}b\\_1 \\& 50\\% & 3.85\\,GB ($-$78.6 \\%; n = 1) & \\textbf{76.1\\,\\%} \\\\\n"
        "    =1+1,\\textquotedbl{}x\\textquotedbl{} & -- & 24.2\\,\\% \\\\\n"
        "    \\bottomrule\n"
        "  \\end{tabular}\n"
        "\\end{table}\n"
    )


def test_every_character_of_latex_is_escaped_once() -> None:
    assert latex("\\ & % $ # _ { } ~ ^ < > [x]") == (
        r"\textbackslash{} \& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{} \textless{} \textgreater{} {[}x{]}"
    )
    assert latex("1\n2") == "1 2"
    assert latex("(IA)³ 0.5 ± 0.1") == r"(IA)\textsuperscript{3} 0.5 $\pm$ 0.1"


def test_the_best_of_a_column_and_its_equals() -> None:
    rows = [[Cell(value, str(value))] for value in (3, 1, 1, None)]
    assert [row[0].best for row in marked(rows, 0, lower_is_better=True)] == [False, True, True, False]
    assert [row[0].best for row in marked(rows, 0, lower_is_better=False)] == [True, False, False, False]
    assert not any(row[0].best for row in marked(rows[1:3], 0, lower_is_better=True)), "where all are alike none is best"
    assert not any(row[0].best for row in marked(rows[:1], 0, lower_is_better=True))
