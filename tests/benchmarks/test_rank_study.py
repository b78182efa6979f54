"""The study of ranks: its rows, what it says of a suggestion, and that it goes on where it stopped."""

from __future__ import annotations

import json
from functools import partial

from benchmarks.rank_study import EXAMPLES, Outcome, Suggestion, missing, records, table
from benchmarks.workloads import write_splits


def outcomes(losses: dict[int, list[float]], task: str = "t") -> list[Outcome]:
    return [Outcome(task, rank, seed, loss, None, 10.0) for rank, values in losses.items() for seed, loss in enumerate(values)]


def verdict(losses: dict[int, list[float]], *suggestions: Suggestion) -> str:
    return table(outcomes(losses), suggestions).splitlines()[-1]


def test_rows_of_the_examples_are_written_the_same_each_time(tmp_path):
    for task in EXAMPLES:
        folders = tmp_path / f"{task}-1", tmp_path / f"{task}-2"
        for folder in folders:
            folder.mkdir()
            write_splits(partial(records, task, data=None), {"test": 5}, folder)
        first, again = (folder / "test.jsonl" for folder in folders)
        assert first.read_bytes() == again.read_bytes()
        rows = [json.loads(line) for line in first.read_text().splitlines()]
        assert len(rows) == 5
        assert all(
            set(row) == {"tickets": {"messages", "label"}, "tickets-write": {"prompt", "completion"}, "tickets-text": {"text"}}[task]
            for row in rows
        )


def test_the_table_says_where_the_suggestion_misses():
    suggestion = Suggestion("t", 16, at_least=False, seconds=30.0)
    assert verdict({4: [3.0, 3.2], 16: [2.0, 2.2]}, suggestion) == "- t: suggested 16 (30 s), the best of the grid."
    miss = verdict({16: [2.5, 2.71], 64: [2.0, 2.2]}, suggestion)
    assert miss == "- t: suggested 16 (30 s), the best is 64: 0.5050 ± 0.0071 more loss than it, which is a miss."
    close = verdict({16: [2.0, 2.3], 64: [2.05, 2.2]}, suggestion)
    assert close == "- t: suggested 16 (30 s), the best is 64: 0.0250 ± 0.1061 more loss than it, within what seeds differ."
    assert "which was not run; the best of those that were is 4" in verdict({4: [2.0]}, suggestion)
    assert verdict({4: [2.0]}) == "- t: not analysed."
    lines = table(outcomes({4: [3.0, 3.2], 16: [2.0, 2.2]}), [suggestion]).splitlines()
    assert lines[2:4] == ["| t | 4 | 3.1000 ± 0.1414 | - | 10 | 2 |", "| t | 16 (suggested) | 2.1000 ± 0.1414 | - | 10 | 2 |"]


def test_what_was_run_is_not_run_again():
    known = outcomes({4: [1.0], 8: [1.0, 1.0]})
    assert list(missing(["t"], [4, 8], [0, 1], known)) == [("t", 4, 1)]
