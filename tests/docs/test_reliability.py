"""docs/reliability.md names states, tests and figures that there are."""

from __future__ import annotations

import re

from tests.faults.figures import PROMISES, table
from webapp.runs.states import TRANSITIONS, State
from webapp.settings.env import PROJECT

TEXT = (PROJECT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_state_machine_is_that_of_the_program() -> None:
    moves = {}
    for line in re.findall(r"^    (\w[\w, ]*) -> (\w[\w, ]*)$", TEXT, re.MULTILINE):
        for frm in line[0].split(", "):
            moves[State(frm)] = frozenset(State(to) for to in line[1].split(", "))
    assert moves == TRANSITIONS


def test_every_fault_has_its_row_and_every_test_named_is_there() -> None:
    assert re.findall(r"^\| (F\d+(?:, F\d+)?) \|", TEXT, re.MULTILINE)
    numbers = [int(number) for row in re.findall(r"^\| (F[\dF, ]+) \|", TEXT, re.MULTILINE) for number in re.findall(r"\d+", row)]
    assert sorted(numbers) == list(range(1, 61))
    for name in re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)`", TEXT):
        place = PROJECT / name if name.startswith("tests/") else PROJECT / "tests" / "faults" / name
        assert place.exists(), name


def test_the_worst_of_several_counts_and_what_must_not_happen_is_added_up() -> None:
    lines = [{"key": "restart", "measured": seconds, "detail": "", "most": 90} for seconds in (70.0, 91.0)]
    lines += [{"key": "stale", "measured": count, "detail": "here", "most": 0} for count in (0, 2)]
    text, bad = table(lines)
    assert set(PROMISES) - set(bad) == set()
    assert "| 91 s |" in text
    assert "| 2 | here |" in text
    assert table([{"key": "restart", "measured": 70.0, "detail": "", "most": 90}])[1] == [key for key in PROMISES if key != "restart"]
